"""Admission (P-16 to P-20): the shape of every check but the expiry is bounded before anything runs."""

import re

from .datalog import Check, Expression, Op, Query, Value
from .functions import FUNCTIONS
from .refusal import require
from .vocabulary import MANY, POLICIES_ONLY, WORDS

_OPERATORS = frozenset("! parens length < > <= >= === !== == && contains starts_with ends_with get extern".split())
_SCALARS = frozenset(("integer", "date", "bool", "string", "bytes"))
_COUNTER = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_MAX_BYTES, _MAX_ELEMENTS, _MAX_EXPRESSIONS, _MAX_OPERATIONS = 1_024, 64, 8, 32
_MAX_DATE = 253_402_300_799


def admit(check: Check) -> None:
    """Refuses a check outside of the grammar."""
    require(len(check.queries) == 1, "P-16")
    query = check.queries[0]
    require(not query.scoped and not query.head.terms, "P-16")
    require(1 <= len(query.body) <= 2, "P-16")
    for predicate in query.body:
        word = WORDS.get(predicate.name)
        require(word is not None and word.terms == len(predicate.terms), "P-16")
        require(predicate.name not in POLICIES_ONLY, "P-16")
        require(predicate.name != "calls" or _is_max_calls(check), "P-16")
    operations = [operation for expression in query.expressions for operation in expression]
    require(all(operation.what == "value" or operation.operator in _OPERATORS for operation in operations), "P-17")
    require(all(_ends_in_one_value(expression) for expression in query.expressions), "P-17")
    gets = any(operation.operator == "get" for operation in operations)
    require(not gets or any(predicate.name == "args" for predicate in query.body), "P-17")
    _bound_literals(query)
    _bound_join(query)
    for expression in query.expressions:
        _check_calls(expression)
    matches = any(operation.extern == "full_match" for operation in operations)
    require(not matches or not any(predicate.name in MANY for predicate in query.body), "P-20")


def _is_max_calls(check: Check) -> bool:
    """P-16: `check all calls("counter", $n), $n <= 5`."""
    query = check.queries[0]
    if check.kind != "check all" or len(query.body) != 1 or len(query.expressions) != 1:
        return False
    (counter_kind, counter), count = query.body[0].terms
    if counter_kind != "string" or not _COUNTER.match(counter) or count[0] != "variable":
        return False
    if [operation.operator for operation in query.expressions[0]] != ["", "", "<="]:
        return False
    left, right, _ = query.expressions[0]
    return left.value == count and right.value is not None and right.value[0] == "integer"


def _ends_in_one_value(expression: Expression) -> bool:
    """P-17: each operator finds its operands, and one value is left."""
    height = 0
    for operation in expression:
        operands = {"value": 0, "unary": 1, "binary": 2}[operation.what]
        if height < operands:
            return False
        height += 1 - operands
    return height == 1


def _bound_literals(query: Query) -> None:
    """P-18."""
    require(len(query.expressions) <= _MAX_EXPRESSIONS, "P-18")
    require(all(len(expression) <= _MAX_OPERATIONS for expression in query.expressions), "P-18")
    terms = [term for predicate in query.body for term in predicate.terms]
    terms += [operation.value for expression in query.expressions for operation in expression if operation.value]
    require(all(_is_bounded(term) for term in terms), "P-18")


def _is_bounded(term: Value) -> bool:
    kind, content = term
    if kind == "variable":
        return True
    if kind in ("set", "array"):
        return len(content) <= _MAX_ELEMENTS and all(_is_bounded_scalar(element) for element in content)
    return _is_bounded_scalar(term)


def _is_bounded_scalar(term: Value) -> bool:
    kind, content = term
    if kind == "string":
        return len(content.encode()) <= _MAX_BYTES
    if kind == "date":
        return bool(content <= _MAX_DATE)
    if kind == "bytes":
        return len(content) <= _MAX_BYTES
    return kind in _SCALARS


def _bound_join(query: Query) -> None:
    """P-19."""
    if len(query.body) < 2:
        return
    first, second = (predicate.name for predicate in query.body)
    for one, other in ((first, second), (second, first)):
        require(not (one in MANY and (other in MANY or other == "args")), "P-19")


def _check_calls(expression: Expression) -> None:
    """P-20: a call has one right-hand argument, a literal directly before it that the function takes."""
    before: Op | None = None
    for operation in expression:
        if operation.operator == "extern":
            function = FUNCTIONS.get(operation.extern or "")
            require(operation.what == "binary" and function is not None, "P-20")
            require(before is not None and before.value is not None and before.value[0] != "variable", "P-20")
            assert function is not None and before is not None and before.value is not None
            require(function.prepare(before.value) is not None, "P-20")
        before = operation
