"""Values of outputs with a mask: by hand, and who refuses them."""

import keras
import numpy as np
import pytest
from keras import ops
from laws.book import array, tensor
from scipy import stats

import keras_penalties as kp

P = kp.penalties
RNG = np.random.default_rng(9)
X = RNG.uniform(0.1, 0.9, size=(5, 4, 3))
MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]])
REAL = X[MASK.astype(bool)]


def masked(p, x=X, mask=MASK):
    dirty = np.where(np.asarray(mask, bool)[..., None], x, np.nan)
    return float(array(p.masked_value(tensor(dirty), mask)))


def test_statistics_are_of_the_real_rows():
    q = REAL.mean(0)
    kl = sum(stats.entropy([0.2, 0.8], [m, 1 - m]) for m in q)
    assert masked(P.KLSparsity(1.0, rate=0.2)) == pytest.approx(kl, rel=1e-5)
    c = np.cov(REAL.T, bias=True)
    apart = np.sum(c**2) - np.sum(np.diag(c) ** 2)
    assert masked(P.Decorrelation()) == pytest.approx(0.5 * apart, rel=1e-4)
    vary = np.mean(np.maximum(1.0 - np.sqrt(np.diag(c) + 1e-4), 0.0))
    assert masked(P.VarianceCovariance(covariance=2.0)) == pytest.approx(
        vary + 2.0 * apart / 3, rel=1e-5
    )


def test_confidence_counts_the_real_rows():
    p = REAL / REAL.sum(-1, keepdims=True)
    sure = np.sum(np.log(3) + np.sum(p * np.log(p), axis=-1))
    found = masked(P.Confidence(), X / X.sum(-1, keepdims=True))
    assert found == pytest.approx(sure, rel=1e-4)
    logits = masked(P.Confidence(from_logits=True), np.log(X))
    assert logits == pytest.approx(sure, rel=1e-4)


def test_a_reference_counts_the_real_rows():
    near = P.ToReference(1.0, values=[0.5, 1.0, 2.0], weights=[1.0, 2.0, 3.0])
    expected = 0.5 * np.sum([1, 2, 3] * (REAL - [0.5, 1.0, 2.0]) ** 2)
    assert masked(near) == pytest.approx(expected, rel=1e-5)


def test_a_sum_weighs_its_parts():
    both = P.L1(0.5) + P.KLSparsity(2.0)
    expected = 0.5 * np.sum(REAL) + 2.0 * masked(P.KLSparsity())
    assert masked(both) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("steps", [False, True])
def test_a_mask_of_samples_or_of_steps(steps):
    mask = MASK if steps else MASK[:, 0]
    kept = X[mask.astype(bool)]
    found = float(array(P.L1().masked_value(tensor(X), mask)))
    assert found == pytest.approx(kept.sum(), rel=1e-5)


REFUSED = [
    P.TotalVariation(axis=1),
    P.TotalVariation(axis=[0, 2]),
    P.Quadratic.differences(1.0, 4, axis=1),
    P.Grouped(P.L1(), axis=-1, weights="sqrt_size"),
    P.Orthogonality(),
    P.Box(),
    P.L1() + P.TotalVariation(axis=0),
]


@pytest.mark.parametrize("p", REFUSED, ids=lambda p: type(p).__name__)
def test_what_is_not_defined_of_a_part_is_refused(p):
    with pytest.raises(ValueError, match="not defined for a part"):
        masked(p)


TAKEN = [
    P.TotalVariation(axis=-1),
    P.Quadratic.differences(1.0, 3, axis=-1),
    P.Grouped(P.L1(), axis=[0, 1], weights="sqrt_size"),
    P.Grouped(P.L1(), axis=-1),
    P.Hoyer(),
]


@pytest.mark.parametrize("p", TAKEN, ids=lambda p: type(p).__name__)
def test_what_runs_along_other_axes_is_taken(p):
    apart = P.Grouped(P.L1(), axis=0, weights="sqrt_size") if p == TAKEN[2] else p
    expected = float(array(apart.value(tensor(REAL))))
    assert masked(p) == pytest.approx(expected, rel=1e-5)


def test_half_floats_are_widened():
    x = np.full((4, 2), 200.0, "float16")
    found = P.L2().masked_value(x, [True, True, True, False])
    assert float(array(found)) == pytest.approx(6 * 200.0**2)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"


def test_batches_of_unknown_size_have_masks_too():
    class Host(keras.layers.Layer):
        def call(self, x):
            mask = ops.any(ops.not_equal(x, 0.0), axis=-1)
            p = P.KLSparsity() + P.Decorrelation() + P.Entropy() + P.L1()
            total = sum(part.masked_value(x, mask) for part in p.parts())
            self.add_loss(ops.cast(total, x.dtype))
            return x

    model = keras.Sequential([keras.Input((4, 3)), Host()])
    model.compile("sgd", "mse")
    x = np.where(MASK[..., None], X, 0.0).astype("float32")
    assert np.isfinite(model.evaluate(x, x, batch_size=2, verbose=0))
