"""Evaluation of admitted checks (`vocabulary.md`, "Evaluation of the checks")."""

from collections.abc import Iterator
from itertools import product

from .datalog import Check, Expression, Op, Predicate, Query, Value
from .functions import FUNCTIONS

Binding = dict[str, Value]

_MEMBERS_OF_SETS = frozenset(("integer", "string", "date", "bool", "bytes"))
_WITH_LENGTH = frozenset(("string", "bytes", "set", "array", "map"))


class EvaluationError(Exception):
    """R-25: a type that an operator does not take, a variable without a value, an expression that is no boolean."""


def passes(check: Check, facts: list[Predicate]) -> bool:
    """Whether an admitted check passes over the facts.

    Every binding is tried, whatever the others say: whether there is an error must not depend on the order of facts.
    """
    (query,) = check.queries
    results = [_all_true(query.expressions, binding) for binding in _bindings(query, facts)]
    if check.kind == "check if":
        return any(results)
    if check.kind == "check all":
        return bool(results) and all(results)
    return not any(results)


def _bindings(query: Query, facts: list[Predicate]) -> Iterator[Binding]:
    candidates = [[fact for fact in facts if fact.name == predicate.name] for predicate in query.body]
    for chosen in product(*candidates):
        binding: Binding = {}
        if all(_unify(predicate, fact, binding) for predicate, fact in zip(query.body, chosen, strict=True)):
            yield binding


def _unify(predicate: Predicate, fact: Predicate, binding: Binding) -> bool:
    for term, value in zip(predicate.terms, fact.terms, strict=True):
        if term[0] == "variable":
            value_so_far = binding.setdefault(term[1], value)
            if value_so_far != value:
                return False
        elif term != value:
            return False
    return True


def _all_true(expressions: tuple[Expression, ...], binding: Binding) -> bool:
    return all(_is_true(expression, binding) for expression in expressions)


def _is_true(expression: Expression, binding: Binding) -> bool:
    stack: list[Value] = []
    for operation in expression:
        if operation.what == "value":
            stack.append(_value(operation, binding))
        elif operation.what == "unary":
            stack.append(_unary(operation, stack.pop()))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(_binary(operation, left, right))
    # Admission (P-17) has seen to it that each operator finds its operands and one value is left.
    ((kind, content),) = stack
    if kind != "bool":
        raise EvaluationError("an expression ends in a boolean")
    return bool(content)


def _value(operation: Op, binding: Binding) -> Value:
    assert operation.value is not None
    kind, content = operation.value
    if kind != "variable":
        return operation.value
    if content not in binding:
        raise EvaluationError(f"${content} has no value")
    return binding[content]


def _unary(operation: Op, value: Value) -> Value:
    kind, content = value
    match operation.operator:
        case "parens":
            return value
        case "!" if kind == "bool":
            return "bool", not content
        case "length" if kind in _WITH_LENGTH:
            return "integer", len(content.encode() if kind == "string" else content)
    raise EvaluationError(f"{operation.operator} of {kind}")


def _binary(operation: Op, left: Value, right: Value) -> Value:
    if operation.operator == "get":
        return _get(left, right)
    if operation.operator == "extern":
        return "bool", _call(operation.extern, left, right)
    return "bool", _test(operation.operator, left, right)


def _test(operator: str, left: Value, right: Value) -> bool:
    (kind, a), (other, b) = left, right
    same = kind == other
    match operator:
        case "===" if same:
            return left == right
        case "!==" if same:
            return left != right
        case "==":
            return left == right
        case "<" if same and kind in ("integer", "date"):
            return bool(a < b)
        case "<=" if same and kind in ("integer", "date"):
            return bool(a <= b)
        case ">" if same and kind in ("integer", "date"):
            return bool(a > b)
        case ">=" if same and kind in ("integer", "date"):
            return bool(a >= b)
        case "&&" if same and kind == "bool":
            return bool(a and b)
        case "contains":
            return _contains(left, right)
        case "starts_with" if same and kind == "string":
            return bool(a.startswith(b))
        case "ends_with" if same and kind == "string":
            return bool(a.endswith(b))
        case "starts_with" if same and kind == "array":
            return bool(a[: len(b)] == b)
        case "ends_with" if same and kind == "array":
            return bool(len(b) <= len(a) and a[len(a) - len(b) :] == b)
    raise EvaluationError(f"{kind} {operator} {other}")


def _contains(left: Value, right: Value) -> bool:
    (kind, a), (other, b) = left, right
    match kind:
        case "string" if other == "string":
            return b in a
        case "set" if other == "set":
            return bool(a >= b)
        case "set" if other in _MEMBERS_OF_SETS:
            return right in a
        case "array":
            return right in a
        case "map":
            return any(key == right for key, _ in a)
    raise EvaluationError(f"{kind} contains {other}")


def _get(left: Value, right: Value) -> Value:
    (kind, content), (index_kind, index) = left, right
    if kind == "map" and index_kind in ("string", "integer"):
        return next((value for key, value in content if key == right), ("null", None))
    if kind == "array" and index_kind == "integer":
        return content[index] if 0 <= index < len(content) else ("null", None)
    raise EvaluationError(f"{kind} get {index_kind}")


def _call(name: str | None, left: Value, right: Value) -> bool:
    function = FUNCTIONS[name or ""]
    if left[0] != function.left:
        raise EvaluationError(f"{name} of {left[0]}")
    return function.holds(left[1], function.prepare(right))
