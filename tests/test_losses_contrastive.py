"""NTXent and SupervisedContrastive against pytorch_metric_learning and optax."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_proofs import agrees, close, normal, samples, slope
from oracles import optax, pytorch_metric_learning, torch

from keras_penalties.losses import NTXent, SupervisedContrastive

seeds = st.integers(0, 10**6)
BOTH = pytest.mark.parametrize("cls", [NTXent, SupervisedContrastive])
PAIRS = np.array([0, 1, 2, 3, 0, 1, 2, 3])
CLASSES = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])


def by_loops(y, z, temperature, rivals_of):
    """One value per row, as the papers write it."""
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    s = z @ z.T / temperature
    values = []
    for i in range(len(y)):
        terms = [
            np.log(np.sum(np.exp([s[i, a] for a in rivals_of(y, i, p)]))) - s[i, p]
            for p in range(len(y))
            if p != i and y[p] == y[i]
        ]
        values.append(np.mean(terms) if terms else 0.0)
    return values


def all_others(y, i, p):
    return [a for a in range(len(y)) if a != i]


def negatives_and(y, i, p):
    return [p] + [a for a in range(len(y)) if y[a] != y[i]]


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("y", [PAIRS, CLASSES])
def test_both_are_the_papers_formulas(y, temperature):
    z = normal((len(y), 3), 1)
    for cls, rivals in ((NTXent, negatives_and), (SupervisedContrastive, all_others)):
        expected = by_loops(y, z, temperature, rivals)
        # At T = 0.07 logits reach 14, and float32's 1e-6 of them is the loss' error.
        if temperature < 0.1:
            values = samples(cls(temperature), y, z)
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
        else:
            agrees(cls(temperature), y, z, expected)


@pytest.mark.parametrize("y", [PAIRS, CLASSES])
def test_nt_xent_is_optax(y):
    z = normal((len(y), 3), 2)
    theirs = optax.losses.ntxent(z, y, temperature=0.5)  # a mean over all pairs
    _, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    positives = counts[index] - 1
    values = samples(NTXent(0.5), y, z)
    expected = np.sum(values * positives) / positives.sum()
    np.testing.assert_allclose(expected, theirs, rtol=1e-5)


def test_both_are_pytorch_metric_learnings():
    z = normal((len(PAIRS), 3), 3)
    for cls, theirs in (
        (NTXent, pytorch_metric_learning.losses.NTXentLoss(temperature=0.5)),
        (
            SupervisedContrastive,
            pytorch_metric_learning.losses.SupConLoss(temperature=0.5),
        ),
    ):
        expected = float(theirs(torch.tensor(z), torch.tensor(PAIRS)))
        assert samples(cls(0.5), PAIRS, z).mean() == pytest.approx(expected, rel=1e-5)
    z = normal((len(CLASSES), 3), 4)
    expected = float(
        pytorch_metric_learning.losses.SupConLoss(temperature=0.5)(
            torch.tensor(z), torch.tensor(CLASSES)
        )
    )
    values = samples(SupervisedContrastive(0.5), CLASSES, z)
    assert values.mean() == pytest.approx(expected, rel=1e-5)


@given(seeds)
def test_with_one_positive_each_they_are_one(seed):
    z = normal((8, 3), seed)
    close(
        samples(NTXent(0.5), PAIRS, z),
        samples(SupervisedContrastive(0.5), PAIRS, z),
        loose=10,
    )


@BOTH
@given(seed=seeds)
def test_length_rotation_names_and_order_change_nothing(cls, seed):
    z, rng = normal((9, 3), seed), np.random.default_rng(seed)
    loss = cls(0.5)
    values = samples(loss, CLASSES, z)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    same = z @ q * rng.gamma(2.0, size=(9, 1))
    order = rng.permutation(9)
    renamed = np.array([7, -3, 10**6])[CLASSES]
    after = samples(loss, renamed[order], same[order])
    np.testing.assert_allclose(after, values[order], rtol=1e-4, atol=1e-4)
    # A slope along the row itself would change its length only.
    along = np.sum(slope(loss, CLASSES, z) * z, axis=-1)
    np.testing.assert_allclose(along, 0.0, atol=1e-4)


@BOTH
def test_together_costs_less_than_apart(cls):
    axes = np.eye(4)
    together = samples(cls(0.1), PAIRS, axes[PAIRS])
    apart = samples(cls(0.1), PAIRS, axes[np.arange(8) // 2])
    assert np.all(together < 0.01)
    assert np.all(apart > 5.0)


@BOTH
def test_alone_or_all_of_a_kind(cls):
    z = normal((3, 2), 1)
    nobody = np.array([0, 1, 2])
    assert np.all(samples(cls(), nobody, z) == 0.0)
    assert np.all(slope(cls(), nobody, z) == 0.0)
    assert samples(cls(), [5], z[:1]) == 0.0
    assert np.all(np.isfinite(samples(cls(), [5, 5, 5], z)))
    assert np.all(np.isfinite(slope(cls(), [5, 5, 5], z)))


@BOTH
def test_a_zero_or_a_huge_row_is_finite(cls):
    z = normal((8, 3), 1)
    z[0], z[1] = 0.0, 1e30
    assert np.all(np.isfinite(samples(cls(), PAIRS, z, "float32")))
    assert np.all(np.isfinite(slope(cls(), PAIRS, z, "float32")))


@BOTH
def test_huge_ids_are_told_apart(cls):
    ids = np.array([2**24, 2**24 + 1], "int32")[np.arange(6) % 2]
    z = normal((6, 3), 1)
    expected = samples(cls(), np.arange(6) % 2, z, "float32")
    assert np.array_equal(samples(cls(), ids, z, "float32"), expected)


@BOTH
def test_bad_arguments_and_shapes_are_refused(cls):
    with pytest.raises(ValueError, match="temperature"):
        cls(0.0)
    for true_shape, pred_shape in (((4,), (4,)), ((4, 2), (4, 2)), ((3,), (4, 2))):
        with pytest.raises(ValueError, match="y_true"):
            cls()(np.zeros(true_shape, "int32"), np.zeros(pred_shape))
