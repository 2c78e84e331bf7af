"""What docs/scaling.md says of devices, in the program that XLA makes for eight."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BACKEND

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "collectives.py"
WIDTH = 256
KERNEL = 4 * WIDTH**2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BACKEND == "torch", reason="JAX compiles, whatever trains"),
]


@pytest.fixture(scope="module")
def rows():
    """Bytes by the case's name, and the operations."""
    pytest.importorskip("jax")
    command = [sys.executable, PROGRAM, f"--width={WIDTH}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    cells = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines()[2:]]
    return {name: (ops, int(size.replace(",", ""))) for name, ops, size, _ in cells}


def test_a_separable_penalty_exchanges_one_number(rows):
    assert rows["separable"] == ("1 all-reduce", 4)
    assert rows["groups, each in one shard"] == ("1 all-reduce", 4)


def test_groups_across_shards_exchange_a_number_each(rows):
    operations, size = rows["groups across shards"]
    assert operations == "1 all-reduce"
    assert 4 * WIDTH <= size <= 4 * WIDTH + 4


def test_orthogonality_sums_the_gram_matrix_where_rows_are_cut(rows):
    operations, size = rows["`Orthogonality`, rows cut"]
    assert operations == "1 all-reduce"
    assert 0.5 * KERNEL <= size <= KERNEL
    assert rows["`Orthogonality`, 16 samples"][1] < size / 4


@pytest.mark.parametrize("name", ["ranked: `SortedL1`", "`Spectral`"])
def test_some_penalties_gather_the_kernel(rows, name):
    operations, size = rows[name]
    assert "1 all-gather" in operations
    assert KERNEL <= size <= KERNEL + 4
