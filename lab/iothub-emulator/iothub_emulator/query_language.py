# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's query language: text in, a query that can be run on twin documents out. No input or output here.

Rules: "IoT Hub query language". Where that is silent the three-valued logic of JSON databases holds: a
member that is not there is undefined, what is compared with undefined or with another type is
undefined, and only what is true is selected.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

Document = Mapping[str, Any]
Path = tuple[str | int, ...]

_MAX_LENGTH = 8192
_MAX_NESTING = 50


class Undefined:
    """The one value of what is not there."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = Undefined()


class QuerySyntaxError(Exception):
    """The text is no query; `position` counts characters from 1."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{text} at position {position}")
        self.position = position


class UnsupportedQueryError(Exception):
    """The query is one of the hub's language that the emulator does not run."""


class Collection(StrEnum):
    DEVICES = "devices"
    MODULES = "devices.modules"


class Expression(Protocol):
    def evaluate(self, document: Document) -> Any:
        """The expression's value for a document, UNDEFINED included."""

    def paths(self) -> Iterator[Path]:
        """The members that the value depends on."""


@dataclass(frozen=True)
class Constant:
    value: Any

    def evaluate(self, _document: Document) -> Any:
        return self.value

    def paths(self) -> Iterator[Path]:
        return iter(())


@dataclass(frozen=True)
class Member:
    """A member of the document, by names and array positions."""

    path: Path

    def evaluate(self, document: Document) -> Any:
        value: Any = document
        for step in self.path:
            if isinstance(step, str):
                if not isinstance(value, dict) or step not in value:
                    return UNDEFINED
            elif not isinstance(value, list) or step >= len(value):
                return UNDEFINED
            value = value[step]
        return value

    def paths(self) -> Iterator[Path]:
        yield self.path


@dataclass(frozen=True)
class Operation:
    """A function of the values of some expressions."""

    function: Callable[..., Any]
    operands: tuple[Expression, ...]

    def evaluate(self, document: Document) -> Any:
        return self.function(*(operand.evaluate(document) for operand in self.operands))

    def paths(self) -> Iterator[Path]:
        for operand in self.operands:
            yield from operand.paths()


@dataclass(frozen=True)
class Connective:
    """AND (decided by a false) or OR (decided by a true), left to right."""

    deciding: bool
    operands: tuple[Expression, ...]

    def evaluate(self, document: Document) -> Any:
        result: Any = not self.deciding
        for operand in self.operands:
            value = operand.evaluate(document)
            if value is self.deciding:
                return value
            if not isinstance(value, bool):
                result = UNDEFINED
        return result

    def paths(self) -> Iterator[Path]:
        for operand in self.operands:
            yield from operand.paths()


@dataclass(frozen=True)
class Column:
    """One entry of the SELECT list; `path` None is COUNT()."""

    name: str
    path: Path | None


@dataclass(frozen=True)
class Query:
    """A parsed query. `columns` empty is SELECT *; `top` None is all."""

    text: str
    collection: Collection
    columns: tuple[Column, ...] = ()
    condition: Expression | None = None
    group_by: tuple[Path, ...] = ()
    top: int | None = None

    @property
    def aggregates(self) -> bool:
        return bool(self.group_by) or any(column.path is None for column in self.columns)

    def matches(self, document: Document) -> bool:
        return self.condition is None or self.condition.evaluate(document) is True

    def condition_paths(self) -> set[Path]:
        """The members on which `matches` depends."""
        return set(self.condition.paths()) if self.condition else set()

    def project(self, document: Document) -> Document:
        """The row of a query with columns that does not aggregate."""
        row: dict[str, Any] = {}
        for column in self.columns:
            value = Member(column.path or ()).evaluate(document)
            if value is not UNDEFINED:
                row[column.name] = value
        return row


def parse_query(text: str) -> Query:
    """Parse SELECT .. FROM .. [WHERE ..] [GROUP BY ..].

    Raises QuerySyntaxError or UnsupportedQueryError.
    """
    return _Parser(text).query()


def parse_condition(text: str) -> tuple[Collection, Expression | None]:
    """Parse the target condition of a configuration: a condition on devices, or
    FROM devices.modules [WHERE ..]. `*` is all devices (the expression is None then).

    Raises QuerySyntaxError or UnsupportedQueryError.
    """
    return _Parser(text).target()


# Members are found without regard to case down to where the user's own documents begin.
_SYSTEM_MEMBERS = {
    name.lower(): name
    for name in (
        "deviceId",
        "moduleId",
        "etag",
        "deviceEtag",
        "status",
        "statusReason",
        "statusUpdateTime",
        "connectionState",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "authenticationType",
        "x509Thumbprint",
        "modelId",
        "version",
        "tags",
        "properties",
        "capabilities",
        "deviceScope",
        "parentScopes",
        "configurations",
    )
}
_INNER_MEMBERS = {
    ("properties", "desired"): "desired",
    ("properties", "reported"): "reported",
    ("capabilities", "iotedge"): "iotEdge",
}


def _canonical(names: Sequence[str | int]) -> Path:
    path = list(names)
    # A twin has no member of this name, so it is the collection's.
    if len(path) > 1 and str(path[0]).lower() == "devices":
        del path[0]
        if len(path) > 1 and str(path[0]).lower() == "modules":
            del path[0]
    path[0] = _SYSTEM_MEMBERS.get(str(path[0]).lower(), path[0])
    if len(path) > 1:
        path[1] = _INNER_MEMBERS.get((str(path[0]), str(path[1]).lower()), path[1])
    return tuple(path)


def _kind(value: Any) -> str:
    if value is UNDEFINED:
        return "undefined"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


_PRIMITIVES = ("null", "boolean", "number", "string")


def _equal(left: Any, right: Any) -> Any:
    kinds = {_kind(left), _kind(right)}
    if "undefined" in kinds:
        return UNDEFINED
    if "null" in kinds:
        return left is right
    # Only primitive values of one type can be compared.
    if len(kinds) > 1 or not kinds <= set(_PRIMITIVES):
        return UNDEFINED
    return left == right


def _unequal(left: Any, right: Any) -> Any:
    equal = _equal(left, right)
    return equal if equal is UNDEFINED else not equal


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def function(left: Any, right: Any) -> Any:
        kind = _kind(left)
        if kind != _kind(right) or kind not in ("boolean", "number", "string"):
            return UNDEFINED
        return compare(left, right)

    return function


def _arithmetic(calculate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def function(left: Any, right: Any) -> Any:
        if _kind(left) != "number" or _kind(right) != "number":
            return UNDEFINED
        try:
            return calculate(left, right)
        except (ZeroDivisionError, OverflowError):
            return UNDEFINED

    return function


def _not(value: Any) -> Any:
    return not value if isinstance(value, bool) else UNDEFINED


def _in(value: Any, values: Any) -> Any:
    if value is UNDEFINED or not isinstance(values, list):
        return UNDEFINED
    return any(_equal(value, candidate) is True for candidate in values)


def _not_in(value: Any, values: Any) -> Any:
    return _not(_in(value, values))


def _array(*values: Any) -> list[Any]:
    return list(values)


def _on_strings(test: Callable[[str, str], bool]) -> Callable[[Any, Any], Any]:
    def function(text: Any, part: Any) -> Any:
        if not isinstance(text, str) or not isinstance(part, str):
            return UNDEFINED
        return test(text, part)

    return function


def _is(*kinds: str) -> Callable[[Any], bool]:
    return lambda value: _kind(value) in kinds


_COMPARISONS = {
    "=": _equal,
    "!=": _unequal,
    "<>": _unequal,
    "<": _ordering(operator.lt),
    "<=": _ordering(operator.le),
    ">": _ordering(operator.gt),
    ">=": _ordering(operator.ge),
}
_SUMS = {"+": _arithmetic(operator.add), "-": _arithmetic(operator.sub)}
_PRODUCTS = {
    "*": _arithmetic(operator.mul),
    "/": _arithmetic(operator.truediv),
    "%": _arithmetic(operator.mod),
}
# Name -> (number of arguments, function).
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "is_defined": (1, lambda value: value is not UNDEFINED),
    "is_null": (1, _is("null")),
    "is_bool": (1, _is("boolean")),
    "is_number": (1, _is("number")),
    "is_string": (1, _is("string")),
    "is_array": (1, _is("array")),
    "is_object": (1, _is("object")),
    "is_primitive": (1, _is(*_PRIMITIVES)),
    "startswith": (2, _on_strings(str.startswith)),
    "starts_with": (2, _on_strings(str.startswith)),
    "endswith": (2, _on_strings(str.endswith)),
    "ends_with": (2, _on_strings(str.endswith)),
    "contains": (2, _on_strings(operator.contains)),
    "array_contains": (2, lambda values, value: _in(value, values)),
}
_AGGREGATES = ("avg", "sum", "min", "max")
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}
_RESERVED = {
    *("select", "top", "from", "where", "group", "by", "as", "and", "or", "not", "in", "nin"),
    *_CONSTANTS,
}

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\W\d][\w$]*|\$[\w$]+")
_MEMBER_NAME = re.compile(r"[\w$]+")
_BRACKETED_NAME = re.compile(r"\[\[(.+?)\]\]", re.DOTALL)
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_INDEX = re.compile(r"\d{1,9}")
_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_PLAIN_ESCAPES = "'\"\\/"


class _Parser:
    """Recursive descent, one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._nesting = 0
        if len(text) > _MAX_LENGTH:
            raise QuerySyntaxError(f"a query has at most {_MAX_LENGTH} characters; too long", _MAX_LENGTH + 1)

    def query(self) -> Query:
        self._need_word("select")
        top = self._top()
        columns = self._columns()
        collection = self._from()
        condition = self._expression() if self._word("where") else None
        group_by = self._group_by()
        self._end()
        for column in columns:
            if (group_by or any(other.path is None for other in columns)) and (
                column.path is not None and column.path not in group_by
            ):
                raise QuerySyntaxError(f"the column {column.name!r} is neither grouped nor counted", 1)
        if group_by and not columns:
            raise QuerySyntaxError("SELECT * cannot be grouped", 1)
        return Query(self._text, collection, columns, condition, group_by, top)

    def target(self) -> tuple[Collection, Expression | None]:
        collection = Collection.DEVICES
        if self._symbol("*"):
            self._end()
            return collection, None
        condition = None
        if self._peek_word() == "from":
            collection = self._from()
            if self._word("where"):
                condition = self._expression()
        else:
            condition = self._expression()
        self._end()
        return collection, condition

    # Clauses

    def _top(self) -> int | None:
        if not self._word("top"):
            return None
        match = self._match(_INDEX)
        if match is None:
            raise self._error("a number after TOP is expected")
        return int(match[0])

    def _columns(self) -> tuple[Column, ...]:
        if self._symbol("*"):
            return ()
        columns = [self._column()]
        while self._symbol(","):
            columns.append(self._column())
        return tuple(columns)

    def _column(self) -> Column:
        word = self._peek_word()
        if word in _AGGREGATES and self._follows(word, "("):
            raise UnsupportedQueryError(f"the aggregate {word.upper()}")
        path: Path | None
        if word == "count" and self._follows(word, "("):
            self._word("count")
            self._need_symbol("(")
            self._need_symbol(")")
            path, name = None, "count"
        else:
            path = self._member().path
            name = str(path[-1])
        if self._word("as"):
            match = self._match(_WORD) or self._match(_BRACKETED_NAME)
            if match is None:
                raise self._error("a name after AS is expected")
            name = match[match.lastindex or 0]
        return Column(name, path)

    def _from(self) -> Collection:
        self._need_word("from")
        start = self._at()
        if not self._word("devices"):
            raise self._error("devices or devices.modules is expected")
        if not self._symbol("."):
            return Collection.DEVICES
        if self._word("modules"):
            return Collection.MODULES
        if self._word("jobs"):
            raise UnsupportedQueryError("the collection devices.jobs")
        raise QuerySyntaxError("devices or devices.modules is expected", start)

    def _group_by(self) -> tuple[Path, ...]:
        if not self._word("group"):
            return ()
        self._need_word("by")
        paths = [self._member().path]
        while self._symbol(","):
            paths.append(self._member().path)
        return tuple(paths)

    # Expressions, from the loosest binding to the tightest

    def _expression(self) -> Expression:
        self._nesting += 1
        if self._nesting > _MAX_NESTING:
            raise self._error(f"nested more than {_MAX_NESTING} deep")
        operands = [self._conjunction()]
        while self._word("or"):
            operands.append(self._conjunction())
        self._nesting -= 1
        return operands[0] if len(operands) == 1 else Connective(True, tuple(operands))

    def _conjunction(self) -> Expression:
        operands = [self._negation()]
        while self._word("and"):
            operands.append(self._negation())
        return operands[0] if len(operands) == 1 else Connective(False, tuple(operands))

    def _negation(self) -> Expression:
        negations = 0
        while self._word("not"):
            negations += 1
        expression = self._comparison()
        # Twice NOT is not the expression itself: what is no boolean becomes undefined.
        for _each in range(min(negations, 2 + negations % 2)):
            expression = Operation(_not, (expression,))
        return expression

    def _comparison(self) -> Expression:
        left = self._sum()
        for symbol in ("<=", ">=", "<>", "!=", "=", "<", ">"):
            if self._symbol(symbol):
                return Operation(_COMPARISONS[symbol], (left, self._sum()))
        if self._word("in"):
            return Operation(_in, (left, self._sum()))
        if self._word("nin"):
            return Operation(_not_in, (left, self._sum()))
        if self._word("not"):
            self._need_word("in")
            return Operation(_not_in, (left, self._sum()))
        return left

    def _sum(self) -> Expression:
        return self._chain(_SUMS, self._product)

    def _product(self) -> Expression:
        return self._chain(_PRODUCTS, self._operand)

    def _chain(
        self, functions: Mapping[str, Callable[..., Any]], operand: Callable[[], Expression]
    ) -> Expression:
        expression = operand()
        length = 1
        while symbol := self._one_of(functions):
            length += 1
            # Each one nests the evaluation by one level.
            if length > _MAX_NESTING:
                raise self._error(f"more than {_MAX_NESTING} operands")
            expression = Operation(functions[symbol], (expression, operand()))
        return expression

    def _operand(self) -> Expression:
        if self._symbol("("):
            expression = self._expression()
            self._need_symbol(")")
            return expression
        if self._text.startswith("[[", self._skip()):
            return self._member()
        if self._symbol("["):
            values = [] if self._follows("", "]") else self._arguments()
            self._need_symbol("]")
            return Operation(_array, tuple(values))
        string = self._string()
        if string is not None:
            return Constant(string)
        number = self._number()
        if number is not None:
            return Constant(number)
        word = self._peek_word()
        if word in _CONSTANTS:
            self._word(word)
            return Constant(_CONSTANTS[word])
        if word and self._follows(word, "("):
            return self._call(word)
        return self._member()

    def _arguments(self) -> list[Expression]:
        values = [self._expression()]
        while self._symbol(","):
            values.append(self._expression())
        return values

    def _call(self, name: str) -> Expression:
        start = self._at()
        if name not in _FUNCTIONS:
            raise QuerySyntaxError(f"unknown function {name!r}", start)
        count, function = _FUNCTIONS[name]
        self._word(name)
        self._need_symbol("(")
        arguments = self._arguments()
        self._need_symbol(")")
        if len(arguments) != count:
            raise QuerySyntaxError(f"{name} takes {count} argument{'s' * (count > 1)}", start)
        return Operation(function, tuple(arguments))

    def _member(self) -> Member:
        match = self._match(_BRACKETED_NAME)
        if match is not None:
            names: list[str | int] = [match[1]]
        else:
            word = self._peek_word()
            if not word or word in _RESERVED:
                raise self._error("a member, a value or a function is expected")
            match = self._match(_WORD)
            names = [match[0] if match else ""]
        while True:
            if self._symbol("."):
                match = self._match(_BRACKETED_NAME) or self._match(_MEMBER_NAME)
                if match is None:
                    raise self._error("the name of a member is expected")
                names.append(match[match.lastindex or 0])
            elif (match := self._match(_BRACKETED_NAME)) is not None:
                names.append(match[1])
            elif self._symbol("["):
                match = self._match(_INDEX)
                step = int(match[0]) if match else self._string()
                if step is None:
                    raise self._error("a position or a name in quotes is expected")
                names.append(step)
                self._need_symbol("]")
            else:
                return Member(_canonical(names))

    def _string(self) -> str | None:
        start = self._at()
        match = self._match(_STRING)
        if match is None:
            if self._text[start - 1 : start] in ("'", '"') and start <= len(self._text):
                raise QuerySyntaxError("a string without its closing quote", start)
            return None

        def replace(escape: re.Match[str]) -> str:
            if escape[1]:
                return chr(int(escape[1], 16))
            if escape[2] not in _PLAIN_ESCAPES:
                raise QuerySyntaxError(f"unknown escape \\{escape[2]} in the string", start)
            return escape[2]

        return _ESCAPE.sub(replace, match[match.lastindex or 0])

    def _number(self) -> float | None:
        start = self._position
        sign = -1 if self._one_of({"-": -1, "+": 1}) == "-" else 1
        match = self._match(_HEXADECIMAL)
        if match is not None:
            return sign * int(match[0], 16)
        match = self._match(_NUMBER)
        if match is None:
            self._position = start
            return None
        text = match[0]
        # Beyond 15 digits a number is no longer exact in JSON anyway.
        exact = text.isdecimal() and len(text) <= 15
        return sign * (int(text) if exact else float(text))

    # Tokens

    def _skip(self) -> int:
        match = _SPACE.match(self._text, self._position)
        self._position = match.end() if match else self._position
        return self._position

    def _at(self) -> int:
        return self._skip() + 1

    def _error(self, text: str) -> QuerySyntaxError:
        position = self._at()
        found = self._text[position - 1 : position + 19] or "the end"
        return QuerySyntaxError(f"{text}, found {found!r}", position)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._skip())
        if match is not None:
            self._position = match.end()
        return match

    def _peek_word(self) -> str:
        match = _WORD.match(self._text, self._skip())
        return match[0].lower() if match else ""

    def _word(self, word: str) -> bool:
        if self._peek_word() != word:
            return False
        self._position += len(word)
        return True

    def _need_word(self, word: str) -> None:
        if not self._word(word):
            raise self._error(f"{word.upper()} is expected")

    def _symbol(self, symbol: str) -> bool:
        if not self._text.startswith(symbol, self._skip()):
            return False
        self._position += len(symbol)
        return True

    def _need_symbol(self, symbol: str) -> None:
        if not self._symbol(symbol):
            raise self._error(f"{symbol!r} is expected")

    def _one_of(self, symbols: Mapping[str, object]) -> str | None:
        return next((symbol for symbol in symbols if self._symbol(symbol)), None)

    def _follows(self, word: str, symbol: str) -> bool:
        """Whether `symbol` comes after `word`, which is next."""
        match = _SPACE.match(self._text, self._skip() + len(word))
        return self._text.startswith(symbol, match.end() if match else len(self._text))

    def _end(self) -> None:
        self._symbol(";")
        if self._skip() < len(self._text):
            raise self._error("the end of the query is expected")
