"""One term of an objective: strength × penalty(target), under one name in the logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from keras_penalties.hosting.targets import TermTarget
from keras_penalties.penalties.base import Penalty
from keras_penalties.strengths import Strength, StrengthLike, kind_of

LossFunction: TypeAlias = Callable[..., Any]
"""A `keras.losses.Loss`, or a function of tensors."""


@dataclass(frozen=True, eq=False)
class Term:
    """A penalty or a loss, on a target, times a strength."""

    name: str
    """The name in the logs."""
    penalty: Penalty | LossFunction
    given_strength: StrengthLike
    """The strength as the user wrote it."""
    target: TermTarget

    @cached_property
    def strength(self) -> Strength:
        """The object that knows how the strength behaves."""
        return kind_of(self.given_strength)

    def value(self, x: Any, penalty: Any = None) -> Any:
        """What the strength multiplies, of `x`, which lies at the target.

        Args:
            x: What is penalised.
            penalty: The term's penalty with what its host keeps for it. Default None:
                the penalty as it is.
        """
        held: Any = self.penalty if penalty is None else penalty
        return self.target.measure(held, x)


def term_name(path: str, penalty: str) -> str:
    """The name in the logs of a penalty on what lies at a path.

    Example:
        >>> term_name("encoder/kernel", "l2")
        'encoder_kernel_l2'
    """
    return f"{path}_{penalty}".replace("/", "_")


def terms_of(penalty: Penalty, target: TermTarget, path: str) -> list[Term]:
    """A term for each part of a penalty on a target, named by the path."""
    return [
        Term(term_name(path, part.name), part, part.strength, target)
        for part in penalty.parts()
    ]


def distinct(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms, of equal names all but the first with a number: `_2`, `_3` and on."""
    named: dict[str, Term] = {}
    counts: dict[str, int] = {}  # from which to go on: thousands may share a name
    for term in terms:
        name, count = term.name, counts.get(term.name, 1)
        while name in named:
            count += 1
            name = f"{term.name}_{count}"
        counts[term.name] = count
        named[name] = replace(term, name=name)
    return tuple(named.values())
