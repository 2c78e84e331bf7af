"""The gallery: its frame, its pages, and one script on a part of its work."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "docs" / "gallery"


@pytest.fixture
def run(monkeypatch):
    """The program `run.py`, with its folder on the path as Python puts it there."""
    monkeypatch.syspath_prepend(str(GALLERY))
    spec = importlib.util.spec_from_file_location("gallery_run", GALLERY / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("ours", "relation", "bar", "met"),
    [
        (43, "<=", 43, True),
        (44, "<=", 43, False),
        (0.8, ">=", 0.8, True),
        (0.79, ">=", 0.8, False),
        (math.nan, "<=", 1.0, False),
    ],
)
def test_a_bar_is_met_without_tolerance(run, ours, relation, bar, met):
    frame = importlib.import_module("frame")  # which `run` has put on the path
    assert frame.Bar("x", ours, relation, bar, "theirs").met is met


def test_the_pages_show_the_results_and_the_code_that_are_there(run):
    found = run.results()
    assert found
    for name, result in found.items():
        page = (GALLERY / f"{name}.md").read_text()
        assert run.results_text(name, result) in page
        assert run.source(GALLERY / f"{name}.py") in page
    assert run.index_text(found) in (GALLERY / "index.md").read_text()


@pytest.mark.slow
def test_genes_on_one_seed():
    pytest.importorskip("jax")  # on which 7,200 short epochs take a tenth of the time
    command = [sys.executable, str(GALLERY / "run.py"), "genes", "--quick"]
    on_jax = {**os.environ, "KERAS_BACKEND": "jax"}
    ran = subprocess.run(command, capture_output=True, text=True, env=on_jax)
    if "NoDataError" in ran.stderr:
        pytest.skip(ran.stderr.splitlines()[-1])
    assert ran.returncode == 0, ran.stderr
    found = json.loads((ROOT / "build" / "gallery" / "genes.json").read_text())
    relations = [(bar["relation"], bar["bar"]) for bar in found["bars"]]
    assert relations == [("<=", 43), ("<=", 0), ("<=", 0), ("<=", 60)]
    genes, of_63, of_20, _ = (bar["ours"] for bar in found["bars"])
    assert 10 <= genes <= 43
    assert of_63 == 0
    assert of_20 <= 1
    assert len(found["curves"]["x"][0]) == genes
    assert "bars are met" in ran.stdout
