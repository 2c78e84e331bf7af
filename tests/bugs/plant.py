"""What a planted bug is: a class with one fault, and the law that must find it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from laws.book import BOOKS, CLASS_LAWS, PRECONDITIONER_LAWS, Law
from laws.preconditioners import Stepping


class Bug(NamedTuple):
    """A maker of faulty objects, one of sound ones, and the law that tells them apart.

    The sound class is the base of the faulty one, so only the fault is between them.
    """

    name: str
    faulty: Callable[[], Any]
    sound: Callable[[], Any]
    law: Law


BUGS: list[Bug] = []


def caught_by(law: str, *args: Any, **kwargs: Any) -> Any:
    """Plant an object of the class, made with these arguments.

    For a law that speaks of classes the class itself is planted, and for a law of the
    preconditioners the class beside a maker of the optimizer that it describes.
    """
    (book,) = (book for book in BOOKS if law in book)

    def made(cls: Any) -> Any:
        if book is CLASS_LAWS:
            return cls
        if book is PRECONDITIONER_LAWS:
            return Stepping(*args, preconditioner=cls)
        return cls(*args, **kwargs)

    def plant(cls: Any) -> Any:
        makers = (functools.partial(made, c) for c in (cls, cls.__bases__[0]))
        BUGS.append(Bug(cls.__name__, *makers, book[law]))
        return cls

    return plant
