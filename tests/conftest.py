"""What every test file shares: the backend, hypothesis' profile, a fresh process."""

from __future__ import annotations

import json
import os
from collections.abc import Generator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fresh
import hypothesis
import keras
import numpy as np
import pytest

from keras_penalties.compat.private import NEWEST_RELEASE

hypothesis.settings.register_profile(
    "default",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "20")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("default")

pytest.register_assert_rewrite("laws")
collect_ignore = ["data"]  # what SAELens has written, and the program that asks it to
BACKEND = os.environ["KERAS_BACKEND"] = keras.backend.backend()


def pytest_report_header() -> str:
    return f"keras {keras.__version__} on {BACKEND}"


def release(version: str) -> list[int]:
    return [int(n) for n in version.split(".")[:3]]


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if BACKEND == "tensorflow" else ():
        if item.get_closest_marker("slow_on_tensorflow"):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A fault that a coming Keras mends is good news, and must not stop anybody."""
    report = yield
    coming = release(keras.__version__) > release(NEWEST_RELEASE)
    if coming and report.failed and item.get_closest_marker("needless"):
        report.outcome, report.wasxfail = "skipped", "Keras mends this itself"
    return report


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def precise():
    """float64 where Keras honours it: on TensorFlow."""
    if BACKEND == "tensorflow":
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
    yield BACKEND == "tensorflow"
    keras.config.set_floatx("float32")


@pytest.fixture
def fresh_process(tmp_path):
    """Run Python source in a new process on the same backend; its stdout comes back."""

    def run(source: str, stdin: str = "", **env: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(source)
        return fresh.run(script, stdin, env)

    return run


GOES_ON = """
import json, keras, numpy as np, keras_penalties
names, options = json.loads(input())
data = np.load("data.npz")
for name in names:
    model = keras.saving.load_model(f"{name}.keras")
    model.fit(data["x"], data["y"], **options)
    state = [*model.weights, *model.optimizer.variables]
    np.savez(f"{name}.npz", *[keras.ops.convert_to_numpy(v) for v in state])
"""


@pytest.fixture
def assert_goes_on(tmp_path, fresh_process):
    """Train and save models; training on is the same, to the last bit, elsewhere."""

    def check(models, x, y, **options):
        np.savez(tmp_path / "data.npz", x=x, y=y)
        for name, model in models.items():
            model.fit(x, y, **options)
            model.save(tmp_path / f"{name}.keras")
            model.fit(x, y, **options)
        fresh_process(GOES_ON, json.dumps([list(models), options]))
        for name, model in models.items():
            variables = [*model.weights, *model.optimizer.variables]
            loaded = np.load(tmp_path / f"{name}.npz").values()
            for variable, value in zip(variables, loaded, strict=True):
                now = keras.ops.convert_to_numpy(variable)
                place = f"{name} {variable.path}"
                np.testing.assert_array_equal(now, value, err_msg=place)

    return check
