"""Metrics of codes and reconstructions beside scikit-learn and in the logs."""

import keras
import numpy as np
import pytest
from sklearn.metrics import explained_variance_score, r2_score
from virtual_devices import TWO_CPUS

import keras_penalties as kp

RNG = np.random.default_rng(0)
HEAVY = "variance_weighted"


def streamed(metric, *data, size=50, **weights):
    for i in range(0, len(data[0]), size):
        some = {name: w[i : i + size] for name, w in weights.items()}
        metric.update_state(*(x[i : i + size] for x in data), **some)
    return float(metric.result())


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_explained_variance_is_sklearns_weighted_r2(mean):
    """Also of sorted rows, so that the first batch has another mean than the rest."""
    x = np.sort(RNG.normal(size=(500, 4)), axis=0) * [0.1, 0.5, 1.0, 2.0] + mean
    x = x.astype("float32")
    rebuilt = (x + RNG.normal(size=x.shape) * 0.3 + 0.2).astype("float32")
    weight = RNG.random(500).astype("float32")
    for some in ({}, {"sample_weight": weight}):
        expected = r2_score(x, rebuilt, multioutput=HEAVY, **some)
        found = streamed(kp.metrics.ExplainedVariance(), x, rebuilt, **some)
        assert found == pytest.approx(expected, abs=2e-5)


def test_explained_variance_does_not_forgive_a_constant_error():
    x = RNG.normal(size=(60, 3))
    rebuilt = 0.8 * x + 0.5
    centered = rebuilt + np.mean(x - rebuilt, axis=0)
    theirs = explained_variance_score(x, rebuilt, multioutput=HEAVY)
    found = streamed(kp.metrics.ExplainedVariance(), x, rebuilt)
    assert found < theirs - 0.1
    found = streamed(kp.metrics.ExplainedVariance(), x, centered)
    assert found == pytest.approx(theirs, abs=1e-5)


def test_the_error_of_a_feature_that_does_not_vary_counts():
    """scikit-learn weighs each feature by its variance, and so forgets this one."""
    x = np.stack([RNG.normal(size=60), np.ones(60)], axis=1)
    rebuilt = x + RNG.normal(size=x.shape)
    expected = 1.0 - np.sum((x - rebuilt) ** 2) / np.sum((x - x.mean(axis=0)) ** 2)
    found = streamed(kp.metrics.ExplainedVariance(), x, rebuilt)
    assert found == pytest.approx(expected, rel=1e-5)


def test_explained_variance_of_targets_that_do_not_vary():
    ones = np.ones((6, 2))
    for rebuilt in (ones, ones + 1.0):
        found = streamed(kp.metrics.ExplainedVariance(), ones, rebuilt)
        assert found == r2_score(ones, rebuilt, multioutput=HEAVY)


def test_l0_and_dead_share_of_a_known_code():
    code = np.where(RNG.random((200, 50)) < 0.1, -1.0, 0.25)
    code[:, :5] = 0.0
    assert streamed(kp.metrics.ActiveUnits(0.25), code) == pytest.approx(
        np.count_nonzero(code < 0) / 200
    )
    assert streamed(kp.metrics.ActiveUnits(), code) == 45.0
    assert streamed(kp.metrics.DeadShare(), code) == pytest.approx(0.1)
    alive = np.any(code < 0, axis=0)
    found = streamed(kp.metrics.DeadShare(threshold=0.25), code)
    assert found == pytest.approx(1.0 - alive.mean())


def test_before_any_row():
    found = [m().result() for m in (kp.metrics.ActiveUnits, kp.metrics.DeadShare)]
    assert [*map(float, found)] == [0.0, 1.0]
    assert float(kp.metrics.ExplainedVariance().result()) == 0.0


@pytest.mark.parametrize(
    ("make", "argument", "batches"),
    [
        (lambda: kp.metrics.ActiveUnits(threshold=-1.0), "threshold", []),
        (kp.metrics.ActiveUnits, "code", [(np.ones(4),)]),
        (kp.metrics.DeadShare, "code", [(np.ones((2, 3)),), (np.ones((2, 4)),)]),
        (
            kp.metrics.ExplainedVariance,
            "y_true",
            [(np.ones((2, 3)),) * 2, (np.ones((2, 4)),) * 2],
        ),
    ],
)
def test_what_is_refused(make, argument, batches):
    with pytest.raises(ValueError, match=f"argument `{argument}`"):
        streamed_all(make(), batches)


def streamed_all(metric, batches):
    for batch in batches:
        metric.update_state(*batch)


def test_a_weight_that_does_not_fit_is_refused():
    for metric, data in (
        (kp.metrics.ActiveUnits(), [np.ones((4, 2))]),
        (kp.metrics.ExplainedVariance(), [np.ones((4, 2))] * 2),
    ):
        with pytest.raises(ValueError, match="argument `sample_weight`"):
            metric.update_state(*data, sample_weight=np.ones(3))


def test_the_logs_of_a_model_with_its_code_as_an_output():
    """Trained, compiled and by batches, under `sample_weight` and after a reload."""
    x = RNG.random((40, 6)).astype("float32")
    inputs = keras.Input((6,))
    code = keras.layers.Dense(9, "relu", name="code")(inputs)
    rebuilt = keras.layers.Dense(6, name="rebuilt")(code)
    model = keras.Model(inputs, {"rebuilt": rebuilt, "code": code})
    model.compile(
        "adam",
        {"rebuilt": "mse"},
        metrics={
            "rebuilt": "explained_variance",
            "code": ["active_units", "dead_share"],
        },
        weighted_metrics={"rebuilt": kp.metrics.ExplainedVariance("weighed")},
    )
    weight = RNG.random(40).astype("float32")
    targets = {"rebuilt": x, "code": x}
    options = {"sample_weight": weight, "batch_size": 16, "verbose": 0}
    history = model.fit(x, targets, epochs=2, **options).history
    assert all(np.isfinite(values).all() for values in history.values())
    logs = model.evaluate(x, targets, return_dict=True, **options)
    found = model.predict(x, verbose=0)
    expected = {
        "code_active_units": np.count_nonzero(found["code"], axis=1).mean(),
        "code_dead_share": np.mean(~found["code"].any(axis=0)),
        "rebuilt_explained_variance": r2_score(x, found["rebuilt"], multioutput=HEAVY),
        "rebuilt_weighed": r2_score(
            x, found["rebuilt"], sample_weight=weight, multioutput=HEAVY
        ),
    }
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name


REPLICAS = """
import numpy as np, keras, keras_penalties as kp
rng = np.random.default_rng(0)
x = np.sort(rng.normal(size=(64, 4)), axis=0) * [0.1, 1, 2, 3] + 100.0
x = x.astype("float32")
def made():
    inputs = keras.Input((4,))
    outputs = keras.layers.Identity(name="same")(inputs)
    return keras.Model(inputs, outputs)
def logs(model):
    model.compile("sgd", "mse", metrics=["explained_variance",
        kp.metrics.ActiveUnits(100.0), kp.metrics.DeadShare(101.5)])
    return [model.evaluate(x, t, batch_size=16, verbose=0, return_dict=True)
            for t in (x, 0.5 * x + 50.5)]
one = logs(made())
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    two = made()
    found = logs(two)
for a, b in zip(one, found):
    for name in a:
        assert abs(a[name] - b[name]) < 1e-4 * max(1, abs(a[name])), (name, a, b)
assert 0 < one[0]["dead_share"] < 1 and 0 < one[0]["active_units"] < 4
print("the same")
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_replicas_add_up(fresh_process):
    assert "the same" in fresh_process(TWO_CPUS + REPLICAS)
