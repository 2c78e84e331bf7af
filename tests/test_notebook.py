"""The lesson in `docs/notebook`: it runs, and it is what its script makes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

FOLDER = Path(__file__).parents[1] / "docs" / "notebook"
spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(scope="module")
def kept():
    """The notebook in the repository."""
    return json.loads(build.NOTEBOOK.read_text("utf-8"))


def joined(text):
    return "".join(text)


def printed(notebook):
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    return "".join(joined(o.get("text", "")) for o in outputs)


def test_the_notebook_is_small_and_shows_what_it_claims(kept):
    assert build.NOTEBOOK.stat().st_size < 500_000
    text = printed(kept)
    assert "largest difference 0\n" in text
    for claim in ("within 1 %", "equal", "within 0.01 of the target", "fewer units"):
        assert f"{claim}: True" in text, claim
    assert "False" not in text
    assert not any(
        o["output_type"] == "error" or o.get("name") == "stderr"
        for cell in kept["cells"]
        for o in cell.get("outputs", ())
    )


def test_the_notebook_has_the_script_s_cells(kept):
    jupytext = pytest.importorskip("jupytext")
    cells = jupytext.reads(build.SOURCE.read_text("utf-8"), "py:percent").cells
    assert [joined(c["source"]) for c in kept["cells"]] == [c.source for c in cells]


@pytest.mark.slow
def test_the_script_makes_the_notebook(monkeypatch):
    """Runs every cell, on JAX as the first cell chooses, whatever this process uses."""
    for module in ("jupytext", "nbclient", "ipykernel", "jax", "matplotlib"):
        pytest.importorskip(module)
    import nbformat

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    made, kept = build.run(), nbformat.read(build.NOTEBOOK, 4)
    assert build.shape(made) == build.shape(kept)
    assert "False" not in printed(made)
