"""Penalties on activations and predictions, against numpy, scipy, torch's packages."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.book import PRECISE, array, equal, slope, tensor, value
from scipy import special, stats

import keras_penalties as kp
from keras_penalties.penalties import (
    Confidence,
    Decorrelation,
    Entropy,
    Hoyer,
    KLSparsity,
    VarianceCovariance,
)

CLOSE = 1e-9 if PRECISE else 2e-5


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def probabilities(*shape, seed=0):
    return special.softmax(noise(*shape, seed=seed), axis=-1)


def off_diagonal(c):
    return np.sum(c**2) - np.sum(np.diag(c) ** 2)


# Hoyer.


def test_hoyer_is_the_ratio_of_norms():
    x = noise(4, 3)
    norms = [np.linalg.norm(x.ravel(), k) ** 2 for k in (1, 2)]
    equal(value(Hoyer(1.0), x), norms[0] / norms[1], CLOSE)
    rows = np.linalg.norm(x, 1, axis=1) ** 2 / np.linalg.norm(x, 2, axis=1) ** 2
    equal(value(Hoyer(1.0, axis=0), x), np.sum(rows), CLOSE)


def test_hoyer_gradient_is_the_paper_s():
    x = np.array([2.0, -1.0, 0.0, 0.5])
    one, two = np.sum(np.abs(x)), np.sum(x**2)
    expected = 2 * np.sign(x) * one / two**2 * (two - np.abs(x) * one)
    equal(slope(Hoyer(1.0), x), expected, CLOSE)


@given(st.sampled_from([1e-25, 1e-3, 1.0, 1e25]), st.integers(1, 12))
def test_hoyer_counts_equal_entries_at_every_scale(scale, count):
    x = np.zeros(12)
    x[:count] = scale
    equal(value(Hoyer(1.0), x, "float32"), count, 1e-5)
    # Along x nothing changes.
    assert abs(np.sum(slope(Hoyer(1.0), x, "float32") * x)) < 1e-4


# Batch statistics.


def test_decorrelation_against_numpy():
    x = noise(10, 4)
    expected = 0.5 * off_diagonal(np.cov(x, rowvar=False, bias=True))
    equal(value(Decorrelation(1.0), x), expected, CLOSE)
    equal(value(Decorrelation(1.0), x.reshape(5, 2, 4)), expected, CLOSE)
    equal(value(Decorrelation(1.0), x + 3.0), expected, 10 * CLOSE)


def test_decorrelation_is_zero_for_uncorrelated_units():
    x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert value(Decorrelation(1.0), x) == 0.0


def test_variance_covariance_against_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch = pytest.importorskip("torch")
    x = np.abs(noise(12, 5)) * 0.8
    theirs = losses.VICRegLoss(invariance_lambda=0, variance_mu=1, covariance_v=0.25)
    batch = torch.tensor(x)
    expected = float(theirs(batch, ref_emb=batch))  # the covariances of both count
    # Theirs divides by N - 1, ours by N.
    grown = x * np.sqrt(12 / 11)
    ours = VarianceCovariance(1.0, covariance=0.5)
    equal(value(ours, grown), expected, 1e-6)


def test_variance_covariance_against_numpy():
    x = noise(10, 4) * [0.1, 0.5, 1.0, 3.0]
    c = np.cov(x, rowvar=False, bias=True)
    missing = np.maximum(0, 1.5 - np.sqrt(np.diag(c) + 1e-4))
    expected = np.mean(missing) + 0.3 * off_diagonal(c) / 4
    equal(value(VarianceCovariance(1.0, 1.5, 0.3), x), expected, CLOSE)


def test_variance_covariance_of_a_collapsed_batch():
    same = np.ones((6, 3))
    p = VarianceCovariance(1.0)
    equal(value(p, same), 1.0 - 0.01, 1e-5)
    assert np.all(np.isfinite(slope(p, same)))


# Confidence.


def test_entropy_against_scipy():
    p = probabilities(6, 5)
    expected = np.sum(stats.entropy(p, axis=-1))
    equal(value(Entropy(1.0), p), expected, CLOSE)
    equal(value(Entropy(1.0, from_logits=True), np.log(p) + 2.0), expected, CLOSE)
    uniform = np.full((6, 5), 0.2)
    divergence = np.sum(stats.entropy(p, uniform, axis=-1))
    equal(value(Confidence(1.0), p), divergence, CLOSE)
    equal(value(Confidence(1.0, from_logits=True), np.log(p)), divergence, CLOSE)


def test_sure_predictions():
    sure = np.eye(3)
    assert abs(value(Entropy(1.0), sure)) < 1e-6
    equal(value(Confidence(1.0), sure), 3 * np.log(3), 1e-6)
    for logits in (1e4 * sure, 1e30 * sure):
        assert value(Entropy(1.0, from_logits=True), logits, "float32") == 0.0
        assert np.all(np.isfinite(slope(Entropy(1.0, True), logits, "float32")))


def test_logits_and_probabilities_have_the_same_slope():
    """By the chain rule through the softmax."""
    logits = noise(3, 4)
    p = special.softmax(logits, axis=-1)
    by_p = slope(Entropy(1.0), p)
    expected = p * (by_p - np.sum(p * by_p, axis=-1, keepdims=True))
    equal(slope(Entropy(1.0, from_logits=True), logits), expected, 10 * CLOSE)


def test_confidence_is_the_reverse_of_label_smoothing():
    """Label smoothing adds KL(uniform ‖ p), this KL(p ‖ uniform): both 0 at uniform."""
    uniform = np.full((2, 4), 0.25)
    assert abs(value(Confidence(1.0), uniform)) < 1e-6
    np.testing.assert_allclose(slope(Confidence(1.0, True), 0 * uniform), 0, atol=1e-6)


@pytest.mark.parametrize("bad", [1, "yes", None])
def test_from_logits_is_a_bool(bad):
    with pytest.raises(ValueError, match="from_logits"):
        Entropy(1.0, from_logits=bad)


# KL sparsity.


def test_kl_sparsity_against_scipy():
    h = special.expit(noise(8, 5))
    q, rho = h.mean(0), 0.05
    expected = sum(stats.entropy([rho, 1 - rho], [m, 1 - m]) for m in q)
    equal(value(KLSparsity(1.0, rate=rho), h), expected, CLOSE)
    each = (-rho / q + (1 - rho) / (1 - q)) / 8
    equal(slope(KLSparsity(1.0, rate=rho), h), np.broadcast_to(each, h.shape), CLOSE)


# In a model.


@pytest.mark.parametrize("size", [4, 8])
def test_a_layer_divides_sums_and_never_statistics(size):
    x = probabilities(size, 3).astype("float32")
    for p in (Entropy(2.0), Confidence(2.0), Hoyer(2.0, axis=0)):
        layer = kp.layers.ActivityPenalty(p)
        layer(tensor(x, "float32"))
        equal(float(array(layer.losses[0])), 2.0 * value(p, x) / size, 1e-5)
    for p in (Decorrelation(2.0), VarianceCovariance(2.0)):
        layer = kp.layers.ActivityPenalty(p)
        layer(tensor(x, "float32"))
        equal(float(array(layer.losses[0])), 2.0 * value(p, x), 1e-5)


def test_batches_of_unknown_size():
    inputs = keras.Input((3,))
    total = kp.get("entropy(0.1) + decorrelation(0.1) + hoyer(0.1, axis=0)")
    outputs = kp.layers.ActivityPenalty(total)(keras.layers.Softmax()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss="mean_squared_error")
    x = noise(10, 3).astype("float32")
    loss = model.evaluate(x, probabilities(10, 3), batch_size=4, verbose=0)
    assert np.isfinite(np.ravel(loss)[0])
