"""What was compared in a case, and which differences are faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BOUNDS = {"float32": (2e-5, 2e-6), "mixed_bfloat16": (5e-2, 5e-2)}
"""Relative and absolute: 170 and 17 roundings of float32, over up to 8 steps; bfloat16
has 8 bits, so that each op rounds by 0.4 %."""


ROUNDING = 10.0
"""A deviation beyond its bound is no fault of this package if it is at most so many
times as large as plain Keras' deviation at the same value, without any penalty."""


@dataclass
class Outcome:
    """What was compared, and what differed."""

    compared: Counter[str] = field(default_factory=Counter)
    shares: dict[str, float] = field(default_factory=dict)
    """The deviation of each value as a share of its bound."""
    faults: list[str] = field(default_factory=list)
    beyond: dict[str, str] = field(default_factory=dict)
    """What came and what is right where a value is beyond its bound."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Those of them that are no faults, with the reason."""

    def compare(
        self,
        what: str,
        name: str,
        came: Any,
        right: Any,
        policy: str,
        size: float = 1.0,
    ) -> None:
        """Note two numbers, or arrays of them. `size` is that of what is summed up."""
        came, right = np.asarray(came, "float64"), np.asarray(right, "float64")
        relative, absolute = BOUNDS[policy]
        self.compared[what] += 1
        if came.shape != right.shape:
            self.faults.append(f"{name}: shape {came.shape}, not {right.shape}")
            return
        scale = np.max(np.abs(right), initial=0.0)
        difference = np.max(np.abs(came - right), initial=0.0)
        share = self.shares[name] = float(
            difference / (relative * scale + absolute * max(size, 1.0))
        )
        if not share <= 1.0:  # NaN too
            self.beyond[name] = (
                f"{name}: {_short(came)} came, {_short(right)} is right, "
                f"{share:.3g} of the bound"
            )

    def excuse(self, other: Outcome, times: float, reason: str) -> bool:
        """Note the values, if any, that deviate at most so many times as in `other`."""
        shares = {name: other.shares.get(name, 0.0) for name in self.beyond}
        excused = {
            name: f"{self.beyond[name]}, {share:.3g} {reason}"
            for name, share in shares.items()
            if self.shares[name] <= times * share
        }
        self.elsewhere |= excused
        return bool(excused)

    def judge(self, without: Outcome) -> None:
        """Which values beyond their bound are faults: those that nothing excuses.

        What plain Keras has not, as a term's log, may follow from those after a step.
        """
        any_without = self.excuse(without, ROUNDING, "without penalties")
        for name, text in self.beyond.items():
            # An optimizer's terms, marked by "*", are logged after the step.
            first = name.startswith(("first step", "gradient")) and "*" not in name
            follows = any_without and name not in without.shares and not first
            if name not in self.elsewhere and not follows:
                self.faults.append(text)

    @property
    def worst(self) -> tuple[float, str]:
        """The largest share of a bound, and of what, without those beyond it."""
        within = {n: s for n, s in self.shares.items() if n not in self.beyond}
        return max(((s, n) for n, s in within.items()), default=(0.0, ""))


def _short(x: np.ndarray) -> str:
    return np.array2string(x.reshape(-1)[:3], precision=7)
