"""Class losses against torch, optax, scikit-learn, coral_pytorch, and identities."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from loss_proofs import agrees, close, normal, samples, slope
from oracles import coral_pytorch, jax, optax, torch
from sklearn.metrics import hinge_loss

from keras_penalties.losses import (
    AsymmetricLoss,
    MulticlassHinge,
    Ordinal,
    PenalizedCrossentropy,
    SymmetricCrossentropy,
)

seeds = st.integers(0, 10**6)
CLASSES = 4


def labelled(n, seed=0, classes=CLASSES):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    return labels, normal((n, classes), seed, 2.0)


def soft(n, seed=0):
    weights = np.random.default_rng(seed).gamma(0.7, size=(n, CLASSES))
    return weights / weights.sum(axis=-1, keepdims=True)


def log_softmax(z):
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def crossentropy(labels, z):
    return -np.take_along_axis(log_softmax(z), labels[:, None], -1)[:, 0]


def as_numpy(x):
    return ops.convert_to_numpy(x)


LABEL_LOSSES = [
    MulticlassHinge("cs"),
    MulticlassHinge("ww"),
    SymmetricCrossentropy(),
    PenalizedCrossentropy(0.1, 0.3, 1.0),
]


@pytest.mark.parametrize("loss", LABEL_LOSSES, ids=lambda loss: type(loss).__name__)
def test_every_form_of_a_label_is_the_same(loss):
    labels, z = labelled(6, 1)
    values = samples(loss, labels, z)
    for form in (
        labels[:, None],
        labels.astype("uint8"),
        labels.astype("float32"),
        np.eye(CLASSES)[labels],
        np.eye(CLASSES, dtype="int32")[labels],
    ):
        close(samples(loss, form, z), values)
    # Dense prediction: a label for each position.
    many = samples(loss, labels.reshape(2, 3), z.reshape(2, 3, CLASSES))
    close(many, values.reshape(2, 3))


@pytest.mark.parametrize("loss", [*LABEL_LOSSES, Ordinal("coral"), Ordinal("corn")])
def test_a_label_that_is_no_class_is_not_passed_over(loss):
    z = normal((2, CLASSES), 1)
    outside = CLASSES + (1 if isinstance(loss, Ordinal) else 0)
    values = samples(loss, np.array([outside, 0]), z)
    assert np.isnan(values[0])
    assert np.isfinite(values[1])
    assert np.isnan(samples(loss, np.array([-1, 0]), z)[0])


def test_hinge_of_crammer_and_singer_is_optax_and_scikit_learn():
    labels, z = labelled(30, 2)
    loss = MulticlassHinge("cs")
    optaxs = optax.losses.multiclass_hinge_loss(
        jax.numpy.array(z), jax.numpy.array(labels)
    )
    np.testing.assert_allclose(samples(loss, labels, z), optaxs, rtol=1e-5, atol=1e-6)
    agrees(loss, labels, z, [one_hinge(y, row) for y, row in zip(labels, z, strict=1)])


def one_hinge(label, scores):
    return hinge_loss([label], scores[None], labels=list(range(CLASSES)))


def test_hinge_of_weston_and_watkins_is_torchs():
    labels, z = labelled(30, 3)
    torchs = torch.nn.functional.multi_margin_loss(
        torch.tensor(z), torch.tensor(labels), reduction="none"
    )
    agrees(MulticlassHinge("ww"), labels, z, CLASSES * torchs.numpy())


@given(seeds)
def test_hinges_keep_their_promises(seed):
    labels, z = labelled(6, seed)
    rows = np.arange(6)
    worst, every = MulticlassHinge("cs"), MulticlassHinge("ww")
    cs, ww = samples(worst, labels, z), samples(every, labels, z)
    assert np.all((cs >= 0) & (cs <= ww + 1e-6))
    assert np.all(ww <= (CLASSES - 1) * cs + 1e-5)
    np.testing.assert_allclose(samples(worst, labels, z + 3.0), cs, atol=1e-5)
    # The true class leads by 1 or more: nothing to pay, no slope.
    z[rows, labels] = z.max(axis=-1) + 1.001
    for loss in (worst, every):
        assert np.all(samples(loss, labels, z) == 0.0)
        assert np.all(slope(loss, labels, z) == 0.0)


def test_keras_own_hinge_lets_the_true_class_compete():
    z = np.array([[-3.0, -5.0, -4.0]])
    kerass = keras.losses.CategoricalHinge()(np.eye(3)[[0]], z)
    assert float(kerass) == pytest.approx(4.0)
    assert samples(MulticlassHinge("cs"), [0], z) == 0.0


def test_symmetric_is_its_two_parts():
    labels, z = labelled(30, 4)
    forward, p = crossentropy(labels, z), np.exp(-crossentropy(labels, z))
    agrees(SymmetricCrossentropy(1.0, 0.0), labels, z, forward)
    agrees(SymmetricCrossentropy(0.0, 1.0, -3.0), labels, z, 3.0 * (1 - p))
    agrees(SymmetricCrossentropy(), labels, z, 0.1 * forward + 4.0 * (1 - p))


def test_symmetric_of_soft_targets_is_the_authors_clip():
    y, z = soft(20, 5), normal((20, CLASSES), 5)
    y[:, 0] = 0.0
    reverse = -np.sum(np.exp(log_softmax(z)) * np.log(np.clip(y, 1e-4, 1.0)), -1)
    y = y.astype("float32").astype("float64")
    loss = SymmetricCrossentropy(0.0, 1.0, log_zero=np.log(1e-4))
    np.testing.assert_allclose(samples(loss, y, z), reverse, rtol=1e-5, atol=1e-5)


@given(seeds)
def test_symmetric_loss_is_bounded_in_its_reverse(seed):
    labels, z = labelled(6, seed)
    values = samples(SymmetricCrossentropy(0.0, 1.0, -4.0), labels, 100 * z)
    assert np.all((values >= -1e-5) & (values <= 4.0 + 1e-5))
    # Over all labels it is a constant: what makes it robust to uniform noise.
    z = np.repeat(z[:1], CLASSES, axis=0)
    all_labels = samples(SymmetricCrossentropy(0.0, 1.0), np.arange(CLASSES), z)
    assert all_labels.sum() == pytest.approx(4.0 * (CLASSES - 1), rel=1e-5)


def test_penalized_has_the_known_members():
    labels, z = labelled(30, 6)
    given_, logits = torch.tensor(labels), torch.tensor(z)
    smoothed = torch.nn.functional.cross_entropy(
        logits, given_, label_smoothing=0.2, reduction="none"
    )
    agrees(PenalizedCrossentropy(label_smoothing=0.2), labels, z, smoothed.numpy())
    poly = optax.losses.poly_loss_cross_entropy(
        jax.numpy.array(z), jax.numpy.array(np.eye(CLASSES)[labels]), epsilon=2.0
    )
    values = samples(PenalizedCrossentropy(poly=2.0), labels, z)
    np.testing.assert_allclose(values, poly, rtol=1e-5, atol=1e-6)
    p = np.exp(log_softmax(z))
    entropy = torch.distributions.Categorical(logits=logits).entropy().numpy()
    confident = crossentropy(labels, z) - 0.3 * entropy
    agrees(PenalizedCrossentropy(confidence_penalty=0.3), labels, z, confident)
    all_three = smoothed.numpy() - 0.3 * entropy + 1 - p[np.arange(30), labels]
    agrees(PenalizedCrossentropy(0.2, 0.3, 1.0), labels, z, all_three)


@given(seeds)
def test_without_terms_it_is_keras_crossentropy(seed):
    y, z = soft(6, seed), normal((6, CLASSES), seed)
    kerass = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    expected = as_numpy(kerass(y, z))
    for loss in (PenalizedCrossentropy(), SymmetricCrossentropy(1.0, 0.0)):
        np.testing.assert_allclose(samples(loss, y, z), expected, rtol=1e-5, atol=1e-6)


@given(seeds)
def test_the_confidence_penalty_is_the_reverse_of_smoothing(seed):
    """−H(p) = KL(p ‖ u) − log K, and smoothing adds KL(u ‖ p) + log K."""
    z = normal((6, CLASSES), seed)
    log_p, labels = log_softmax(z), np.zeros(6, "int32")
    plain = samples(PenalizedCrossentropy(), labels, z)
    penalised = samples(PenalizedCrossentropy(confidence_penalty=1.0), labels, z)
    reverse = np.sum(np.exp(log_p) * (log_p + np.log(CLASSES)), axis=-1)
    np.testing.assert_allclose(
        penalised - plain, reverse - np.log(CLASSES), rtol=1e-4, atol=1e-5
    )


def multilabel(n, seed):
    labels = np.random.default_rng(seed).integers(0, 2, (n, 3))
    return labels.astype("float64"), normal((n, 3), seed, 2.0)


def test_asymmetric_is_the_papers_formula():
    y, z = multilabel(30, 7)
    p = 1 / (1 + np.exp(-z))
    for gp, gn, m in ((0.0, 4.0, 0.05), (1.0, 2.5, 0.2), (0.5, 0.0, 0.3)):
        shifted = np.maximum(p - m, 0)
        positive = y * (1 - p) ** gp * np.log(p)
        negative = (1 - y) * shifted**gn * np.log(1 - shifted)
        agrees(AsymmetricLoss(gp, gn, m), y, z, -np.mean(positive + negative, axis=-1))


@given(seeds)
def test_asymmetric_reduces_to_keras_losses(seed):
    y, z = multilabel(6, seed)
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    focal = keras.losses.BinaryFocalCrossentropy(
        gamma=2.0, from_logits=True, reduction=None
    )
    for loss, kerass in (
        (AsymmetricLoss(0, 0, 0), binary),
        (AsymmetricLoss(2, 2, 0), focal),
    ):
        expected = as_numpy(kerass(y, z))
        np.testing.assert_allclose(samples(loss, y, z), expected, rtol=1e-4, atol=1e-6)
    optaxs = optax.losses.sigmoid_focal_loss(
        jax.numpy.array(z), jax.numpy.array(y), gamma=2.0
    )
    np.testing.assert_allclose(
        samples(AsymmetricLoss(2, 2, 0), y, z), optaxs.mean(-1), rtol=1e-4, atol=1e-6
    )


def test_easy_negatives_cost_nothing():
    for gamma in (0.0, 0.5, 1.0, 4.0):
        loss, z = AsymmetricLoss(0.0, gamma, 0.2), np.array([[-2.0, -30.0, -1e4]])
        assert samples(loss, np.zeros((1, 3)), z) == 0.0
        assert np.all(slope(loss, np.zeros((1, 3)), z) == 0.0)


def test_coral_is_coral_pytorchs():
    ranks, z = labelled(30, 8)
    z = z[:, :3]
    levels = torch.tensor((ranks[:, None] > np.arange(3)).astype("float64"))
    theirs = coral_pytorch.losses.coral_loss(torch.tensor(z), levels, reduction=None)
    agrees(Ordinal("coral"), ranks, z, theirs.numpy())


def test_corn_is_coral_pytorchs_over_other_counts():
    """They divide by the questions that were asked, a mean over samples by samples."""
    ranks, z = labelled(30, 9)
    z = z[:, :3]
    theirs = coral_pytorch.losses.corn_loss(
        torch.tensor(z), torch.tensor(ranks), num_classes=4
    )
    asked = np.sum(np.minimum(ranks + 1, 3))
    values = samples(Ordinal("corn"), ranks, z)
    np.testing.assert_allclose(values.sum(), float(theirs) * asked, rtol=1e-5)
    chances = corn_probabilities(z)
    agrees(Ordinal("corn"), ranks, z, -np.log(chances[np.arange(30), ranks]))


def corn_probabilities(z):
    """P(y > k) is the product of the conditional answers."""
    above = np.cumprod(1 / (1 + np.exp(-z)), axis=-1)
    padded = np.concatenate([np.ones((len(z), 1)), above, np.zeros((len(z), 1))], -1)
    return padded[:, :-1] - padded[:, 1:]


@given(seeds)
def test_two_ranks_are_a_binary_crossentropy(seed):
    ranks, z = labelled(6, seed, classes=2)
    kerass = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    expected = as_numpy(kerass(ranks[:, None].astype("float32"), z[:, :1]))
    for method in ("coral", "corn"):
        values = samples(Ordinal(method), ranks, z[:, :1])
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@given(seeds)
def test_a_rank_farther_off_costs_more(seed):
    """With logits that fall, as CORAL's do."""
    z = -np.sort(-normal((1, 3), seed), axis=-1)
    values = samples(Ordinal("coral"), np.arange(4), np.repeat(z, 4, axis=0))
    # Rank k adds -z_k to rank k-1: convex in k, so it falls to the best and rises.
    np.testing.assert_allclose(np.diff(values), -z[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (MulticlassHinge, {"method": "ovr"}),
        (SymmetricCrossentropy, {"alpha": -1.0}),
        (SymmetricCrossentropy, {"beta": -1.0}),
        (SymmetricCrossentropy, {"log_zero": 0.0}),
        (PenalizedCrossentropy, {"label_smoothing": 1.1}),
        (PenalizedCrossentropy, {"confidence_penalty": -0.1}),
        (PenalizedCrossentropy, {"poly": -2.0}),
        (AsymmetricLoss, {"gamma_positive": -1.0}),
        (AsymmetricLoss, {"gamma_negative": -1.0}),
        (AsymmetricLoss, {"margin": 1.0}),
        (Ordinal, {"method": "probit"}),
    ],
)
def test_bad_arguments_are_refused(cls, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        cls(**arguments)


@pytest.mark.parametrize("loss", LABEL_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("true_shape", "pred_shape"),
    [
        ((4,), (3, 2)),
        ((4, 3), (4, 2)),
        ((4,), (4, 1)),
        ((4, 2), (4, 5, 3)),
        ((4,), (4,)),
    ],
)
def test_bad_shapes_are_refused(loss, true_shape, pred_shape):
    with pytest.raises(ValueError, match="y_true"):
        loss(np.zeros(true_shape, "int32"), np.zeros(pred_shape))
