"""Objects from strings: `"elastic_net(0.01, l1_ratio=0.3)"`, without `eval`.

The grammar is a name, with arguments or without, and sums of such: `name`,
`name(literal, key=literal)`, `name(other(0.1), axis=0)`, `a(0.1) + b(0.2)`. A name
may be a Keras key, `package>Name`.
"""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import keras

from keras_penalties import registry


def get(identifier: Any, kind: str) -> Any:
    """The object of that kind which a string, a config or the object itself stands for.

    Args:
        identifier: A registered name with or without arguments, a config as
            `keras.saving.serialize_keras_object` gives it, a class, or an object.
        kind: `"penalty"` or `"loss"`.

    Raises:
        ValueError: for an unknown name, or a string outside the grammar.
    """
    if isinstance(identifier, str):
        return _from_string(identifier, kind)
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    return identifier() if inspect.isclass(identifier) else identifier


def _from_string(text: str, kind: str) -> Any:
    if "(" not in text and "+" not in text:
        return _called(registry.lookup(text.strip(), kind))
    try:
        # Python would read `package>Name(...)` as a comparison.
        tree = ast.parse(re.sub(r"(\w+)>(?=\w)", r"\1.", text.strip()), mode="eval")
        return _built(tree.body, kind)
    except (SyntaxError, _OutsideGrammarError) as error:
        raise ValueError(
            "Invalid identifier. Expected a name, or a name with literal arguments "
            f"such as 'elastic_net(0.01, l1_ratio=0.3)'. Received: {text!r}"
        ) from error


class _OutsideGrammarError(Exception):
    pass


def _built(node: ast.expr, kind: str) -> Any:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _built(left, kind) + _built(right, kind)
        case ast.Name() | ast.Attribute():
            return _called(registry.lookup(_name(node), kind))
        case ast.Call(func=func, args=args, keywords=keywords):
            named = {k.arg: _argument(k.value, kind) for k in keywords if k.arg}
            if len(named) != len(keywords):
                raise _OutsideGrammarError
            positional = [_argument(a, kind) for a in args]
            return _called(registry.lookup(_name(func), kind), *positional, **named)
    raise _OutsideGrammarError


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=package), attr=name):
            return f"{package}>{name}"
    raise _OutsideGrammarError


def _called(found: Any, *args: Any, **kwargs: Any) -> Any:
    """An object of the class that was found; a function is itself the object."""
    if inspect.isclass(found):
        return found(*args, **kwargs)
    if args or kwargs:
        raise ValueError(f"`{found.__name__}` is a function and takes no arguments.")
    return found


def _argument(node: ast.expr, kind: str) -> Any:
    """A literal, a list of arguments, or another object."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_argument(item, kind) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _built(node, kind)
