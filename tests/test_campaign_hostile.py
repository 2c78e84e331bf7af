"""Fixed slices of the campaign: hostile strings and files, and kills."""

import contextlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest
from campaign import hostile, strings
from conftest import BACKEND

import keras_penalties as kp

pytestmark = pytest.mark.one_backend

TESTS = Path(__file__).parent


def test_hostile_strings():
    figures = strings.run(1_000, seed=1)
    assert figures["wrong"] == []
    assert figures["examples read back"] > 100
    assert all("refused" in found for found in figures["readers"].values())
    assert figures["readers"]["penalty"]["an object"] > 10


def test_the_strings_find_what_is_wrong():
    """An error of the wrong kind, one that says nothing, and one that takes long."""
    recursion, nothing = RecursionError("deep"), ValueError("bad")

    def raising(error):
        def read(text):
            raise error

        return read

    for error in (recursion, nothing):
        came, seconds, _ = strings.outcome(raising(error), "l1(0.1)?")
        assert strings.fault("penalty", "l1(0.1)?", came, seconds)
    assert strings.fault("penalty", "l1", "refused", 0.2)
    assert strings.fault("strength", "l1", "an object", 0.0)


@pytest.mark.parametrize(
    "pattern",
    ["a{99999999999}", "(" * 5000 + ")" * 5000, "x" * 10**6, "a)|(?:b", "(?i)a"],
)
def test_a_pattern_that_is_none_is_refused_clearly(pattern):
    with pytest.raises(ValueError, match=r"argument `penalties`\. Expected") as caught:
        kp.optimizers.Proximal("sgd", {pattern: "l1"})
    assert len(str(caught.value)) < 1500


def test_a_pattern_may_refer_to_its_own_groups():
    layer = keras.layers.Dense(2, name="aa")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(kp.optimizers.Proximal("sgd", {r"(a)\1/kernel": "l1"}), "mse")
    model.optimizer.build(model.trainable_variables)
    assert [term.target for term in kp.terms(model)] == ["aa/kernel"]


def test_a_file_with_an_argument_of_another_version_says_so():
    config = {"class_name": "keras_penalties>L1", "config": {"strenght": 1.0}}
    with pytest.raises(
        ValueError, match=r"L1 has no argument 'strenght'\. Did you mean"
    ):
        keras.saving.deserialize_keras_object(config)


@pytest.mark.slow
def test_damaged_files_and_files_with_code():
    figures = hostile.run(300, seed=1)
    assert figures["wrong"] == []
    assert {"a model", "ValueError", "OSError"} <= figures["load_model gave"].keys()


@pytest.mark.slow
def test_files_with_code(tmp_path):
    """Each form of code in a config, in place of a layer: none runs."""
    reader = hostile.Reader(tmp_path)
    try:
        for path in hostile.with_code(tmp_path):
            (kind, fault), events, inspected = reader.read(path)
            assert (kind == "a model", fault, events, inspected) == (False, "", [], "")
    finally:
        reader.close()
    assert {path.suffix for path in tmp_path.iterdir()} == {".keras"}


def test_the_code_is_live_and_is_seen(tmp_path, monkeypatch):
    """With safe mode off it runs, so the tests above do look."""
    monkeypatch.chdir(tmp_path)
    for path in hostile.with_code(tmp_path):
        if '"Lambda"' in zipfile.ZipFile(path).read("config.json").decode():
            with contextlib.suppress(Exception):  # no model, but the code has run
                keras.saving.load_model(path, safe_mode=False)
    assert (tmp_path / "canary").exists()
    events = []
    hostile.watch("os.system", ("touch canary",), events)
    hostile.watch("open", ("/etc/passwd", "r", 0), events)
    hostile.watch("open", ("model.keras", "r", 0), events)
    assert len(events) == 2


@pytest.mark.slow
def test_trainings_that_are_killed_end_as_if_nobody_had_disturbed_them():
    words = [sys.executable, "-m", "campaign.kills", "--count", "4", "--seed", "4"]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
