"""The proximal map of a sum, where it is made of the maps of the parts.

Each of these rules is exact:

1. Parts that are alike are one part, whose t is the sum of theirs.
2. Squares `½·Σ b·(x − c)²` are completed: what is left is the map of the other parts at
   `(x + Σ t·b·c) / (1 + Σ t·b)`, each with its t divided by `1 + Σ t·b`.
3. The maps of the other parts follow one another in the order of `PLACES`, of each
   place one part at most, of cones any number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from keras_penalties.numerics import soft_threshold
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.refusals import one_step
from keras_penalties.typing import Tensor

PLACES = ("order", "cone", "entries", "bounds", "groups")
"""Where a part's map has its turn, first to last:

- `order`: the map keeps the order of entries and has, where entries change places, no
  slope of its own (total variation). It needs one t for all entries.
- `cone`: a sum over entries that are each proportional to |x| on either side of 0, or
  infinite there (L1, a hinge, a sign).
- `entries`: a sum over entries that grows with |x|.
- `bounds`: an interval for each entry.
- `groups`: the map draws entries nearer to 0 and changes no sign (group norms, balls).
  It goes with cones only.
"""


class Joint:
    """The parts of a sum, sorted by how their proximal maps go together."""

    def __init__(self, parts: Sequence[Penalty]) -> None:
        self.parts = parts
        self.kinked = any(part.elastic and part.elastic[0] > 0 for part in parts)
        self.rest: list[Penalty] = []
        """What is neither elastic nor a square, once for parts that are alike."""
        for part in parts:
            if not (part.elastic or part.joint == "square" or self._index(part) >= 0):
                self.rest.append(part)
        squares = [part for part in parts if part.joint == "square"]
        self.uniform = all(part.uniform for part in squares)

    def _index(self, part: Penalty) -> int:
        """Which of `rest` is alike, or -1."""
        return next((n for n, p in enumerate(self.rest) if p.alike(part)), -1)

    @property
    def known(self) -> bool:
        """Whether the rules give the map."""
        places = Counter(part.joint for part in self.rest)
        places["cone"] += self.kinked
        if not all(part.has_prox for part in self.rest):
            return False
        if not (self.uniform or all(part.per_entry for part in self.rest)):
            return False
        if places.total() < 2:
            return True
        ordered, bounded = places["order"], places["bounds"]
        once = all(places[p] < 2 for p in PLACES if p != "cone")
        alone = not (places["groups"] and (ordered or places["entries"] or bounded))
        convex = all(part.convex for part in self.rest) or not (ordered or bounded)
        one_t = self.uniform or not ordered
        return not places[None] and once and alone and convex and one_t

    @property
    def per_entry(self) -> bool:
        """Whether the map takes one t for each entry."""
        ordered = any(part.joint == "order" for part in self.rest)
        several = len(self.rest) + self.kinked > 1
        return all(p.per_entry for p in self.parts) and not (ordered and several)

    def prox(self, x: Tensor, ts: Sequence[Tensor]) -> Tensor:
        """The map, with a t for each part."""
        scale, shift, threshold = 1.0, 0.0, 0.0
        own = [0.0] * len(self.rest)
        for part, t in zip(self.parts, ts, strict=True):
            if part.elastic:
                kink, bend = part.elastic
                threshold, scale = threshold + kink * t, scale + bend * t
            elif part.joint == "square":
                weights, center = part.square(x)
                scale, shift = scale + t * weights, shift + t * weights * center
            else:
                own[self._index(part)] += t
        x, threshold = (x + shift) / scale, threshold / scale
        for place in (None, *PLACES):
            if place == "cone" and self.kinked:
                x = soft_threshold(x, threshold)
            for part, t in zip(self.rest, own, strict=True):
                if part.joint == place:
                    one = place == "order" and len(self.rest) + self.kinked > 1
                    x = part.prox(x, one_step(part, t / scale) if one else t / scale)
        return x
