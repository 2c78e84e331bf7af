"""The memory of training steps: ours by plain `fit`, and SAELens by its own trainer."""

from __future__ import annotations

import sys

import pytest
from bench_saelens import SIZES, made, ours, theirs, trained_ours, trained_theirs
from bench_start import forget_peak, fresh, memory
from harness import Claim, measured

STEPS = 50
KINDS = ("TopK", "JumpReLU")


@pytest.mark.parametrize("kind", KINDS)
def test_peak_memory(options, report, kind):
    """A fresh process each, in turns."""
    pytest.importorskip("sae_lens", reason="SAELens is not installed")
    mine, rival = f"{kind} by fit", "SAELens' trainer"
    samples = {mine: [], rival: []}
    for _ in range(options.runs):
        for name, peaks in samples.items():
            peaks += fresh(__file__, kind, "ours" if name == mine else "theirs")
    title = f"Peak memory of {STEPS} steps, {kind}, large"
    report(measured(title, samples, [Claim(mine, rival, 1.0)], unit="MB"))


def peak_of_steps(kind: str, side: str) -> float:
    """The largest growth of the process in MB, from the small size to the large one.

    The small one has already brought what a backend loads, compilers too.
    """
    before = 0.0
    for size in ("small", "large"):
        data = made(*SIZES[size])
        sae = theirs(kind, data)
        before = memory("VmRSS")
        forget_peak()
        if side == "ours":
            trained_ours(ours(kind, data, sae), data.train, STEPS)
        else:
            trained_theirs(sae, data.train, STEPS)
    return memory("VmHWM") - before


if __name__ == "__main__":
    print(peak_of_steps(sys.argv[1], sys.argv[2]))
