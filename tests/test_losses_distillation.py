"""Distillation against torch, and what its targets carry."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from loss_proofs import agrees, close, normal, samples, slope
from oracles import torch

from keras_penalties.losses import Distillation

seeds = st.integers(0, 10**6)
temperatures = st.sampled_from([0.5, 1.0, 4.0])


def case(n, seed=0, classes=4):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    return labels, normal((n, classes), seed), normal((n, classes), seed + 1)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_is_torchs_divergence_and_crossentropy(temperature, alpha):
    labels, teacher, student = case(20, 1)
    t, s = torch.tensor(teacher), torch.tensor(student)
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(s / temperature, -1),
        torch.softmax(t / temperature, -1),
        reduction="none",
    ).sum(-1)
    hard = torch.nn.functional.cross_entropy(s, torch.tensor(labels), reduction="none")
    expected = (alpha * temperature**2 * soft + (1 - alpha) * hard).numpy()
    loss = Distillation(temperature, alpha)
    agrees(loss, loss.targets(labels, teacher), student, expected)
    dense = loss.targets(np.eye(4)[labels], teacher)
    assert dense.shape == (20, 8)
    agrees(loss, dense, student, expected)


def test_targets_put_the_label_first():
    packed = Distillation.targets(np.array([2, 0]), np.array([[1, 2, 3], [4, 5, 6.0]]))
    assert packed.tolist() == [[2, 1, 2, 3], [0, 4, 5, 6]]
    pixels = Distillation.targets(np.zeros((2, 5, 1)), np.zeros((2, 5, 3)))
    assert pixels.shape == (2, 5, 4)
    assert samples(Distillation(), pixels, normal((2, 5, 3))).shape == (2, 5)


@given(temperatures, seeds)
def test_a_student_that_agrees_pays_nothing(temperature, seed):
    labels, teacher, student = case(6, seed)
    loss = Distillation(temperature, alpha=1.0)
    y = loss.targets(labels, teacher)
    close(samples(loss, y, teacher + 1.5), 0.0, loose=10)
    close(slope(loss, y, teacher), 0.0, loose=10)
    assert np.all(samples(loss, y, student) >= -1e-6)


@given(seeds)
def test_a_hot_teacher_is_matched_in_its_centred_logits(seed):
    """Hinton et al., eq. 4: as T grows, T²·KL nears the mean square over 2 classes."""
    labels, teacher, student = case(6, seed)
    loss = Distillation(100.0, alpha=1.0)
    gap = (student - student.mean(-1, keepdims=True)) - (
        teacher - teacher.mean(-1, keepdims=True)
    )
    limit = np.mean(gap**2, axis=-1) / 2
    values = samples(loss, loss.targets(labels, teacher), student)
    # KL is 1e-4 here, a difference of logs of 1: float32 keeps two digits of it.
    np.testing.assert_allclose(values, limit, rtol=0.1, atol=0.02)


@given(seeds)
def test_without_a_teacher_it_is_keras_crossentropy(seed):
    labels, teacher, student = case(6, seed)
    loss = Distillation(alpha=0.0)
    kerass = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )
    expected = ops.convert_to_numpy(kerass(labels, student))
    values = samples(loss, loss.targets(labels, teacher), student)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_fit_follows_the_teacher():
    x = normal((64, 3), 1).astype("float32")
    teacher = x @ normal((3, 4), 2).astype("float32")
    y = Distillation.targets(teacher.argmax(-1), teacher)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.1), loss=Distillation(2.0, alpha=1.0))
    history = model.fit(x, y, epochs=30, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


def test_bad_arguments_and_shapes_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        Distillation(0.0)
    with pytest.raises(ValueError, match="alpha"):
        Distillation(alpha=1.5)
    for columns in (1, 3, 5, 7, 9):
        with pytest.raises(ValueError, match="4 or 6 columns"):
            Distillation()(np.zeros((2, columns)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels"):
        Distillation.targets(np.zeros((2, 2)), np.zeros((2, 3)))
