"""Admission (P-16 to P-20): the shape of every check but the expiry is bounded before anything runs."""

from .datalog import Check, Expression, Op, Query, Value
from .functions import FUNCTIONS
from .refusal import require
from .vocabulary import MANY, WORDS

_OPERATORS = frozenset("! parens length < > <= >= === !== == && contains starts_with ends_with get extern".split())
_SCALARS = frozenset(("integer", "date", "bool", "string", "bytes"))
_MAX_BYTES, _MAX_ELEMENTS, _MAX_EXPRESSIONS, _MAX_OPERATIONS = 1_024, 64, 8, 32


def admit(check: Check) -> None:
    """Refuses a check outside of the grammar."""
    require(len(check.queries) == 1, "P-16")
    query = check.queries[0]
    require(not query.scoped and not query.head.terms, "P-16")
    require(1 <= len(query.body) <= 2, "P-16")
    for predicate in query.body:
        word = WORDS.get(predicate.name)
        require(word is not None and word.terms == len(predicate.terms), "P-16")
    operations = [operation for expression in query.expressions for operation in expression]
    require(all(operation.what == "value" or operation.operator in _OPERATORS for operation in operations), "P-17")
    _bound_literals(query)
    _bound_join(query)
    for expression in query.expressions:
        _check_calls(expression)


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
    if kind == "bytes":
        return len(content) <= _MAX_BYTES
    return kind in _SCALARS


def _bound_join(query: Query) -> None:
    """P-19."""
    if len(query.body) < 2 or not query.expressions:
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
