"""The memory of training steps: ours by plain `fit`, and SAELens by its own trainer."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from functools import partial

import pytest
from bench_saelens import BATCH, SIZES, made, ours, theirs, trained_ours, trained_theirs
from bench_start import forget_peak, memory
from harness import Claim, measured
from steps import fresh

STEPS = 50
KINDS = ("TopK", "JumpReLU")


@pytest.mark.parametrize("kind", KINDS)
def test_peak_memory(options, report, kind):
    """A fresh process each, in turns."""
    pytest.importorskip("sae_lens", reason="SAELens is not installed")
    mine, rival = f"{kind} by fit", "SAELens' trainer"
    first, later = ({mine: [], rival: []} for _ in range(2))
    for _ in range(options.runs):
        for name in first:
            side = "ours" if name == mine else "theirs"
            for samples, peak in zip(
                (first, later), fresh(__file__, kind, side), strict=True
            ):
                samples[name].append(peak)
    claim = Claim(mine, rival, 1.0)
    of_first = f"Peak memory of the first {STEPS} steps, {kind}, large"
    report(measured(of_first, first, [claim], unit="MB"))
    of_later = f"Peak memory of the next {STEPS} steps, {kind}, large"
    report(measured(of_later, later, [claim], unit="MB"))


def peaks_of_steps(kind: str, side: str) -> tuple[float, float]:
    """How much the process grows in MB: in its first steps of the large size, and in
    the next ones, for which all is compiled and loaded.

    The small size has already brought what a backend loads, compilers too.
    """
    growth = {}
    for size in SIZES:
        data = made(*SIZES[size])
        x, sae = data.train[: STEPS * BATCH], theirs(kind, data)
        start = settled()
        if side == "ours":
            model = ours(kind, data, sae)
            train = partial(trained_ours, model, x, STEPS)
        else:
            train = partial(trained_theirs, sae, x, STEPS)
        train()
        first, again = memory("VmHWM") - start, settled()
        train()
        growth[size] = first, memory("VmHWM") - again
    return growth["large"]


def settled() -> float:
    """MB, after all memory that is not used is given back; peaks count from here."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # Linux only
    forget_peak()
    return memory("VmRSS")


if __name__ == "__main__":
    print(*peaks_of_steps(sys.argv[1], sys.argv[2]))
