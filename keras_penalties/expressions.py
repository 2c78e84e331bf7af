"""Objects from strings: `"elastic_net(0.01, l1_ratio=0.3)"`, without `eval`.

The grammar is a name, with arguments or without, and sums of such: `name`,
`name(literal, key=literal)`, `name(other(0.1), axis=0)`, `a(0.1) + b(0.2)`. A name
may be a Keras key, `package>Name`.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any, NoReturn

import keras

from keras_penalties import checks, config, registry

MAX_CHARACTERS = 10_000
"""The longest string that is read."""
MAX_DEPTH = 20
"""How many brackets may be open at once."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[-+]?\.?\d(?:[eE][-+]\d|[\w.])*)
      | (?P<string>'[^'\\]*'|"[^"\\]*")
      | (?P<name>(?:[^\W\d][\w.-]*>)?[^\W\d]\w*)
      | (?P<mark>[][(){}+,=:])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_CONSTANTS = {"None": None, "True": True, "False": False}
_LITERALS = (str, int, float, complex, list, dict, type(None))


def get(
    identifier: Any,
    kind: str,
    base: type | None = None,
    argument: str = "identifier",
) -> Any:
    """The object of that kind which a string, a config or the object itself stands for.

    Args:
        identifier: A registered name with or without arguments, a config as
            `keras.saving.serialize_keras_object` gives it, a class, or an object.
        kind: `"penalty"` or `"loss"`.
        base: The class that the object must be an instance of, unless it is a function
            that serves as a loss. Default: the class that Keras has for the kind.
        argument: The name of the user's argument, which an error message starts with.

    Raises:
        ValueError: for an unknown name, a string outside the grammar, arguments that
            the class refuses, or an object of another kind. The message says how the
            user can write what was probably meant.
    """
    base = base or registry.KINDS[kind]
    if isinstance(identifier, str):
        return _from_string(identifier, kind, base, argument)
    found = identifier
    if isinstance(identifier, dict) and "class_name" in identifier:
        found = keras.saving.deserialize_keras_object(identifier)
    elif inspect.isclass(identifier) and issubclass(identifier, base):
        found = _called(identifier, [], {})
    if not isinstance(found, base) and not (kind == "loss" and _is_function(found)):
        checks.refuse(argument, _expected(kind, identifier), identifier)
    return found


def _is_function(obj: Any) -> bool:
    return callable(obj) and not isinstance(obj, keras.regularizers.Regularizer)


def _expected(kind: str, received: Any) -> str:
    """What an argument takes, and how to write what was probably meant.

    A number, a list, a function and a Keras regularizer are the usual mistakes.
    """
    expected = f"a {kind} of keras_penalties, its name or its config"
    if kind == "loss":
        return expected.replace("of keras_penalties", "or a function")
    if isinstance(received, bool):
        return expected
    if isinstance(received, int | float):
        return f"{expected}. A number is a strength: write 'l1({received:.6g})'"
    if isinstance(received, list | tuple | set):
        return f"{expected}. Several penalties are one sum: write 'l1(0.1) + l2(0.1)'"
    if isinstance(received, dict):
        return f"{expected}. A config has the keys 'class_name' and 'config'"
    if getattr(received, "__module__", "").partition(".")[0] == "keras":
        return f"{expected}. An object of Keras is not: write 'l1(0.1)' or 'l2(0.1)'"
    if callable(received):
        expected += ". A function is not: write a subclass of `kp.penalties.Penalty`"
    return expected


def _from_string(text: str, kind: str, base: type, argument: str) -> Any:
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"A string may have at most {MAX_CHARACTERS:,} characters."
            )
        if "(" not in text and "+" not in text:  # a name, of whatever characters
            return _called(registry.lookup(text.strip(), kind, base), [], {})
        return _Parser(text, kind, base).whole()
    except ValueError as error:
        reason = checks.shortened(str(error), 1000)
        raise ValueError(
            f"Invalid value for argument `{argument}`. "
            f"Received: {argument}={checks.shown(text)}. {reason}"
        ) from error


class _Parser:
    """Reads a string once, from left to right. Each method reads one rule."""

    def __init__(self, text: str, kind: str, base: type) -> None:
        self._text = text
        self._kind = kind
        self._base = base
        self._depth = 0
        self._start = self._end = 0
        self._type: str | None = None
        self._token = ""
        self._next()

    def whole(self) -> Any:
        """The object that the whole string stands for."""
        value = self._sum()
        if self._type != "end" or isinstance(value, _LITERALS):
            self._fail()
        return value

    def _next(self) -> str:
        """Go on to the next token, and return the one before it."""
        before, match = self._token, _TOKEN.match(self._text, self._end)
        if match is None:
            self._start = self._end
            self._fail()
        self._type = match.lastgroup
        self._start, self._end = match.span(match.lastgroup or 0)
        self._token = self._text[self._start : self._end]
        return before

    def _fail(self) -> NoReturn:
        raise ValueError(
            f"Invalid {self._kind} string, at {self._text[self._start :][:20]!r}. "
            "Expected a name, a name with literal arguments such as "
            "'elastic_net(0.01, l1_ratio=0.3)', or a sum of them"
        )

    def _sees(self, mark: str) -> bool:
        return self._type == "mark" and self._token == mark

    def _take(self, mark: str) -> None:
        if not self._sees(mark):
            self._fail()
        self._next()

    def _sum(self) -> Any:
        """A value, or objects with `+` between them."""
        parts = [self._value()]
        while self._sees("+"):
            self._next()
            parts.append(self._value())
        if len(parts) > 1 and any(isinstance(part, _LITERALS) for part in parts):
            self._fail()
        while len(parts) > 1:  # in pairs, so that a long sum takes a short time
            pairs = zip(parts[::2], parts[1::2], strict=False)
            odd = parts[-1:] if len(parts) % 2 else []
            parts = [_added(a, b) for a, b in pairs] + odd
        return parts[0]

    def _value(self) -> Any:
        if self._type == "name":
            return self._named()
        if self._type == "string":
            return self._next()[1:-1]
        if self._type == "number":
            return self._number()
        if self._sees("{"):
            return dict(self._items("}", self._pair))
        if self._sees("["):
            return self._items("]", self._sum)
        if self._sees("("):
            values = self._items(")", self._sum)
            return values[0] if len(values) == 1 else values
        self._fail()

    def _number(self) -> Any:
        try:
            value = ast.literal_eval(self._token)
        except (SyntaxError, ValueError):
            self._fail()
        self._next()
        return value

    def _named(self) -> Any:
        """A constant, or an object by its name, with arguments or without."""
        name = self._next()
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        found = registry.lookup(name, self._kind, self._base)
        arguments = self._items(")", self._argument) if self._sees("(") else []
        args = [value for key, value in arguments if key is None]
        kwargs = {key: value for key, value in arguments if key is not None}
        if len(args) + len(kwargs) < len(arguments):
            raise ValueError(f"An argument of '{name}' is given twice.")
        return _called(found, args, kwargs)

    def _items(self, close: str, item: Callable[[], Any]) -> list[Any]:
        """Items with commas between them, in brackets."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"More than {MAX_DEPTH} brackets are open at once.")
        self._next()
        items = []
        while not self._sees(close):
            items.append(item())
            if not self._sees(close):
                self._take(",")
        self._next()
        self._depth -= 1
        return items

    def _argument(self) -> tuple[str | None, Any]:
        """`value` or `name=value`."""
        if self._type == "name" and self._text[self._end :].lstrip().startswith("="):
            name = self._next()
            self._take("=")
            return name, self._sum()
        return None, self._sum()

    def _pair(self) -> tuple[Any, Any]:
        """`key: value`."""
        key = self._value()
        if isinstance(key, list | dict):
            self._fail()
        self._take(":")
        return key, self._sum()


def _added(a: Any, b: Any) -> Any:
    try:
        return a + b
    except TypeError as error:
        raise ValueError(
            f"{checks.shown(a)} and {checks.shown(b)} don't add."
        ) from error


def _called(found: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """An object of the class that was found; a function is itself the object."""
    if not inspect.isclass(found):
        if args or kwargs:
            raise ValueError(
                f"`{found.__name__}` is a function and takes no arguments."
            )
        return found
    return config.called(found, args, kwargs)
