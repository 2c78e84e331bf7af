"""What devices exchange for a penalty on a kernel that is cut over eight of them.

    python benchmarks/collectives.py [--width 2048] [--docs]

XLA compiles the value and the gradient, and the program that it makes says which
collective operations move how many bytes. Nothing is run, so that eight virtual devices
suffice. `--docs` writes the table into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterator

DEVICES = 8
os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

# After the flags, which count when a backend starts.
import jax  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402
from pages import table, write  # noqa: E402

from keras_penalties import penalties  # noqa: E402

L1 = penalties.L1(1e-3)
COLUMNS, ROWS = (None, "model"), ("model", None)
CASES = {
    "separable": (L1, COLUMNS),
    "groups, each in one shard": (penalties.Grouped(L1, axis=0), ROWS),
    "groups across shards": (penalties.Grouped(L1, axis=0), COLUMNS),
    "`Orthogonality`, rows cut": (penalties.Orthogonality(1e-3), ROWS),
    "`Orthogonality`, columns cut": (penalties.Orthogonality(1e-3), COLUMNS),
    "`Orthogonality`, 16 samples": (penalties.Orthogonality(1e-3, samples=16), ROWS),
    "ranked: `SortedL1`": (penalties.SortedL1(1e-3), COLUMNS),
    "`Spectral`": (penalties.Spectral(L1), COLUMNS),
    "`Spectral`, of rank 64": (penalties.Spectral(L1, max_rank=64), COLUMNS),
}
"""A penalty, and along which axis the kernel is cut."""
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
OPERATION = re.compile(rf"= \(?(.*?)\)? ({KINDS})(?:-start)?\(")
SIZES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def program(penalty: penalties.Penalty, cut: tuple[str | None, ...], width: int) -> str:
    """What XLA makes of the value and the gradient, for each device."""
    mesh = Mesh(jax.devices()[:DEVICES], ("model",))
    kernel = NamedSharding(mesh, PartitionSpec(*cut))
    step = jax.jit(
        jax.value_and_grad(penalty),
        in_shardings=kernel,
        out_shardings=(NamedSharding(mesh, PartitionSpec()), kernel),
    )
    shape = jax.ShapeDtypeStruct((width, width), "float32")
    text: str = step.lower(shape).compile().as_text()
    return text


def exchanged(text: str) -> Iterator[tuple[str, int]]:
    """Each collective operation of a program, and the bytes of what it gives out."""
    for given, operation in OPERATION.findall(text):
        found = re.findall(r"(\w+)\[([\d,]*)\]", given)
        sizes = (
            SIZES[t] * math.prod(map(int, filter(None, n.split(",")))) for t, n in found
        )
        yield operation, sum(sizes)


def rows(width: int) -> Iterator[tuple[str, str, int]]:
    """For each case the operations, and the bytes in all."""
    for name, (penalty, cut) in CASES.items():
        found = list(exchanged(program(penalty, cut, width)))
        kinds = sorted({operation for operation, _ in found})
        counted = (f"{sum(o == k for o, _ in found)} {k}" for k in kinds)
        yield name, ", ".join(counted), sum(size for _, size in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    kernel = 4 * given.width**2
    found = ([*row, f"{row[-1] / kernel:.3g}"] for row in rows(given.width))
    head = "penalty | operations | bytes | in kernels"
    text = table(head, ([n, o, f"{b:,}", share] for n, o, b, share in found))
    print(text)
    if given.docs:
        write("scaling.md", "collectives", text)


if __name__ == "__main__":
    main()
