"""EntmaxLoss against the authors' package, BiTempered against scipy's root finder."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from loss_proofs import BOUNDS, DTYPES, agrees, close, compiled, normal, samples, slope
from oracles import entmax, optax, torch
from scipy import optimize

from keras_penalties.losses import BiTempered, EntmaxLoss
from keras_penalties.losses.tempered import tempered_log_softmax

seeds = st.integers(0, 10**6)
alphas = st.sampled_from([1.0, 1.5, 3.0])
CLASSES = 5


def labelled(n, seed=0):
    return np.random.default_rng(seed).integers(0, CLASSES, n), normal(
        (n, CLASSES), seed, 2.0
    )


def soft(n, seed=0):
    weights = np.random.default_rng(seed).gamma(0.7, size=(n, CLASSES)) + 0.01
    return weights / weights.sum(axis=-1, keepdims=True)


@functools.cache
def log_softmax(t):
    return compiled(functools.partial(tempered_log_softmax, t=t))


def probabilities(z, t, dtype):
    logs = log_softmax(t)(ops.convert_to_tensor(z, dtype))
    return np.exp(ops.convert_to_numpy(logs).astype("float64"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0, 2.5])
def test_probabilities_are_the_entmax_packages(alpha, dtype):
    z = normal((20, CLASSES), 1, 2.0)
    theirs = entmax.entmax_bisect(torch.tensor(z), alpha=alpha, n_iter=100).numpy()
    ours = probabilities(z, 2.0 - alpha, dtype)
    # Where a probability nears 0 under alpha > 2 its slope is infinite.
    power = 1.0 if alpha <= 2 else 1 / (alpha - 1)
    bound = BOUNDS[dtype] ** power * 10
    np.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound)
    assert np.any(ours == 0.0)


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0])
def test_entmax_loss_is_the_entmax_packages(alpha):
    labels, z = labelled(30, 1)
    target, logits = torch.tensor(labels), torch.tensor(z)
    if alpha == 1.0:
        expected = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    else:
        expected = entmax.EntmaxBisectLoss(alpha, n_iter=100, reduction="none")(
            logits, target
        )
    agrees(EntmaxLoss(alpha), labels, z, expected.numpy())


@pytest.mark.parametrize("near", [1 + 1e-4, 1 + 1e-9])
def test_entmax_loss_nears_the_crossentropy(near):
    labels, z = labelled(30, 1)
    limit = samples(EntmaxLoss(1.0), labels, z)
    values = samples(EntmaxLoss(near), labels, z)
    np.testing.assert_allclose(values, limit, rtol=20 * (near - 1) + 1e-5, atol=1e-6)


def test_entmax_2_is_optax_sparsemax():
    labels, z = labelled(30, 2)
    expected = optax.losses.multiclass_sparsemax_loss(z, labels)
    values = samples(EntmaxLoss(2.0), labels, z)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@given(alphas, seeds)
def test_the_gradient_is_the_surplus_of_probability(alpha, seed):
    labels, z = labelled(6, seed)
    p = probabilities(z, 2.0 - alpha, "float32")
    gradient = slope(EntmaxLoss(alpha), labels, z, "float32")
    np.testing.assert_allclose(gradient, p - np.eye(CLASSES)[labels], atol=1e-5)
    np.testing.assert_allclose(p.sum(axis=-1), 1.0, atol=1e-4)


@pytest.mark.slow_on_tensorflow
@given(alphas, seeds)
def test_entmax_loss_is_0_where_it_is_sure(alpha, seed):
    labels, z = labelled(6, seed)
    loss = EntmaxLoss(alpha)
    values = samples(loss, labels, z)
    assert np.all(values >= -1e-6)
    np.testing.assert_allclose(samples(loss, labels, z + 3.0), values, atol=1e-5)
    if alpha > 1.0:
        z[np.arange(6), labels] = z.max(axis=-1) + 1.001 / (alpha - 1.0)
        close(samples(loss, labels, z), 0.0)
        close(slope(loss, labels, z), 0.0)


@pytest.mark.slow_on_tensorflow
@given(alphas, seeds)
def test_soft_targets_cost_least_at_their_own_probabilities(alpha, seed):
    """Fenchel-Young: 0 exactly where p = y, and above it elsewhere."""
    z = normal((6, CLASSES), seed)
    y = probabilities(z, 2.0 - alpha, "float32")
    values = samples(EntmaxLoss(alpha), y, z)
    target_entropy = -np.sum(np.where(y > 0, y * np.log(np.where(y > 0, y, 1)), 0), -1)
    # At alpha 1 the loss is the crossentropy, without the entropy of the target.
    rest = tsallis(y, alpha) if alpha > 1 else target_entropy
    np.testing.assert_allclose(values - rest, 0.0, atol=1e-4)
    others = normal((6, CLASSES), seed + 1)
    assert np.all(samples(EntmaxLoss(alpha), y, others) - rest >= -1e-4)


def tsallis(p, alpha):
    return np.sum(p - p**alpha, axis=-1) / (alpha * (alpha - 1))


def log_t(x, t):
    return np.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def bi_tempered(y, z, t1, t2):
    """The paper's loss of one sample, its θ by scipy."""

    def p_at(theta):
        x = z - theta
        if t2 == 1:
            return np.exp(x)
        return np.maximum(1 + (1 - t2) * x, 0) ** (1 / (1 - t2))

    low = z.max()
    theta = optimize.brentq(lambda t: p_at(t).sum() - 1, low, low + 1e6, xtol=1e-14)
    p = p_at(theta)
    logs = np.where(y > 0, y * (log_t(np.where(y > 0, y, 1), t1) - log_t(p, t1)), 0)
    return np.sum(logs - (y ** (2 - t1) - p ** (2 - t1)) / (2 - t1))


@pytest.mark.parametrize(
    ("t1", "t2"), [(0.0, 1.2), (0.3, 4.0), (0.8, 1.0), (1.0, 2.0), (1.0, 1.0)]
)
def test_bi_tempered_is_the_papers_formula(t1, t2):
    labels, z = labelled(12, 3)
    hard = np.eye(CLASSES)[labels]
    expected = [bi_tempered(y, row, t1, t2) for y, row in zip(hard, z, strict=True)]
    for dtype in DTYPES:
        values = samples(BiTempered(t1, t2), labels, z, dtype)
        # brentq's own error is up to 4 eps of θ.
        bound = {"float32": 1e-5, "float64": 1e-11}[dtype]
        np.testing.assert_allclose(values, expected, rtol=bound, atol=bound)
    mixed = soft(12, 3)
    expected = [bi_tempered(y, row, t1, t2) for y, row in zip(mixed, z, strict=True)]
    values = samples(BiTempered(t1, t2), mixed, z)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_untempered_is_the_crossentropy():
    labels, z = labelled(12, 4)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(z), torch.tensor(labels), reduction="none"
    ).numpy()
    agrees(BiTempered(1.0, 1.0), labels, z, expected)
    for near in (BiTempered(1 - 1e-7, 1.0), BiTempered(1.0, 1 + 1e-7)):
        np.testing.assert_allclose(samples(near, labels, z), expected, rtol=1e-5)


@pytest.mark.slow_on_tensorflow
@given(st.sampled_from([(0.0, 1.5), (0.5, 1.0), (0.9, 3.0)]), seeds)
def test_bi_tempered_is_bounded_and_a_divergence(temperatures, seed):
    t1, t2 = temperatures
    labels, z = labelled(6, seed)
    values = samples(BiTempered(t1, t2), labels, z * 50)
    # p_y = 0, and another class sure: 1/(1 - t1) of the log, none of the powers.
    assert np.all((values >= -1e-5) & (values <= 1 / (1 - t1) + 1e-5))
    p = probabilities(z, t2, "float32")
    np.testing.assert_allclose(samples(BiTempered(t1, t2), p, z), 0.0, atol=1e-5)
    shifted = samples(BiTempered(t1, t2), labels, z + 2.0)
    close(shifted, samples(BiTempered(t1, t2), labels, z), loose=10)


def test_bi_tempered_gradient_is_the_implicit_one():
    """dp_i/dz_j = p_i^t (δ_ij − p_j^t / Σ p^t), by the chain rule on paper."""
    labels, z = labelled(8, 5)
    t1, t2 = 0.4, 1.7
    p = probabilities(z, t2, "float64" if "float64" in DTYPES else "float32")
    y = np.eye(CLASSES)[labels]
    by_p = (p - y) * p ** (-t1)
    powers = p**t2
    mean = np.sum(by_p * powers, -1, keepdims=True) / powers.sum(-1, keepdims=True)
    close(slope(BiTempered(t1, t2), labels, z), powers * (by_p - mean), loose=10)


@pytest.mark.parametrize("loss", [EntmaxLoss(1.0), BiTempered(1.0, 1.0)])
@given(seed=seeds)
def test_limits_are_keras_crossentropy(loss, seed):
    labels, z = labelled(6, seed)
    kerass = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )
    expected = ops.convert_to_numpy(kerass(labels, z))
    np.testing.assert_allclose(samples(loss, labels, z), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (EntmaxLoss, {"alpha": 0.9}),
        (BiTempered, {"t1": 1.1}),
        (BiTempered, {"t1": -0.1}),
        (BiTempered, {"t2": 0.9}),
    ],
)
def test_bad_arguments_are_refused(cls, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        cls(**arguments)


@pytest.mark.parametrize("loss", [EntmaxLoss(), BiTempered()])
def test_bad_shapes_are_refused(loss):
    with pytest.raises(ValueError, match="y_true"):
        loss(np.zeros((4, 3)), np.zeros((4, 2)))
