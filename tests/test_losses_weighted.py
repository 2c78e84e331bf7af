"""Class weights: as fit's where fit has them, and where it hasn't."""

import keras
import numpy as np
import pytest
from keras import ops
from loss_proofs import close, normal, samples
from strategies import BACKEND

import keras_penalties as kp
from keras_penalties import autodiff
from keras_penalties.losses import ClassWeighted, Ordinal

WEIGHTS = [1.0, 5.0, 0.5]
LABELS = np.array([0, 1, 2, 1, 0, 2])
LOGITS = normal((6, 3), 1)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def crossentropy(labels, logits):
    return -np.take_along_axis(
        logits - np.log(np.exp(logits).sum(-1, keepdims=True)), labels[..., None], -1
    )[..., 0]


def test_each_sample_is_weighed_by_its_class():
    expected = np.array(WEIGHTS)[LABELS] * crossentropy(LABELS, LOGITS)
    dense = keras.losses.CategoricalCrossentropy(from_logits=True)
    one_hot = np.eye(3)[LABELS]
    for inner, y in (
        (SPARSE, LABELS),
        (SPARSE, LABELS[:, None]),
        (dense, one_hot),
        ("penalized_crossentropy", LABELS),
        (kp.losses.PenalizedCrossentropy(), one_hot),
    ):
        values = samples(ClassWeighted(inner, WEIGHTS), y, LOGITS)
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_dense_predictions_are_weighed_by_position():
    """Where fit's class_weight refuses: an image of labels."""
    labels = LABELS.reshape(1, 2, 3)
    logits = LOGITS.reshape(1, 2, 3, 3)
    expected = np.array(WEIGHTS)[labels] * crossentropy(labels, logits)
    for y in (labels, labels[..., None], np.eye(3)[labels]):
        inner = "penalized_crossentropy"
        values = samples(ClassWeighted(inner, WEIGHTS), y, logits)
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_soft_target_weighs_its_share():
    y = np.array([[0.25, 0.75, 0.0]])
    loss = ClassWeighted("penalized_crossentropy", WEIGHTS)
    plain = samples(kp.losses.PenalizedCrossentropy(), y, LOGITS[:1])
    close(samples(loss, y, LOGITS[:1]), plain * 4.0)


def test_binary_labels_and_functions_and_ordinals():
    y, logits = np.array([0, 1, 1]), normal((3, 1), 2)
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
    plain = ops.convert_to_numpy(binary(y[:, None], logits))
    loss = ClassWeighted(keras.losses.BinaryCrossentropy(from_logits=True), [1.0, 3.0])
    expected = plain * [1, 3, 3]
    np.testing.assert_allclose(samples(loss, y[:, None], logits), expected, rtol=1e-5)
    function = ClassWeighted("mean_absolute_error", [1.0, 3.0])
    values = samples(function, y[:, None], logits)
    errors = np.abs(y - logits[:, 0]) * [1, 3, 3]
    np.testing.assert_allclose(values, errors, rtol=1e-5)
    ranked = samples(ClassWeighted(Ordinal("corn"), [1, 2, 3, 4]), LABELS, LOGITS)
    plain = samples(Ordinal("corn"), LABELS, LOGITS)
    np.testing.assert_allclose(ranked, plain * (LABELS + 1), rtol=1e-6)


def test_is_what_fit_does_with_class_weight():
    x = normal((6, 3), 3).astype("float32")

    def trained(loss, **arguments):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        model.compile("sgd", loss=loss)
        model.fit(x, LABELS, epochs=3, shuffle=False, verbose=0, **arguments)
        return model.get_weights()[0]

    weights = dict(enumerate(WEIGHTS))
    ours = trained(ClassWeighted(SPARSE, weights))
    theirs = trained(SPARSE, class_weight=weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_several_outputs_have_weights_of_their_own(tmp_path):
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(3, name=name)(inputs) for name in "ab"}
    model = keras.Model(inputs, outputs)
    weights = {"a": [1.0, 0.0, 0.0], "b": [0.0, 0.0, 2.0]}
    model.compile("sgd", loss={k: ClassWeighted(SPARSE, w) for k, w in weights.items()})
    x = normal((6, 3), 4).astype("float32")
    y = {"a": LABELS, "b": LABELS[::-1].copy()}
    predicted = model.predict(x, verbose=0)
    expected = sum(
        np.mean(np.array(weights[k])[y[k]] * crossentropy(y[k], predicted[k]))
        for k in "ab"
    )
    result = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert result == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    result = again.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert result == pytest.approx(expected, rel=1e-5)


def test_config_keeps_the_loss_and_its_arguments():
    for inner in (SPARSE, Ordinal("corn"), "mean_absolute_error"):
        before = ClassWeighted(inner, {1: 2, 0: 1})
        again = ClassWeighted.from_config(before.get_config())
        assert again.weights == [1.0, 2.0]
        assert again.get_config() == before.get_config()
    config = ClassWeighted(Ordinal("corn"), [1.0]).get_config()
    assert ClassWeighted.from_config(config).loss.method == "corn"


def test_a_label_without_a_weight_is_not_passed_over():
    loss = ClassWeighted("penalized_crossentropy", [1.0, 1.0])
    assert np.isnan(samples(loss, LABELS, LOGITS)[2])


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"loss": 3, "weights": [1.0]}, "loss"),
        ({"loss": Ordinal(reduction="sum"), "weights": [1.0]}, "loss"),
        ({"loss": SPARSE, "weights": []}, "weights"),
        ({"loss": SPARSE, "weights": [1.0, -1.0]}, "weights"),
        ({"loss": SPARSE, "weights": {0: 1.0, 2: 1.0}}, "weights"),
    ],
)
def test_bad_arguments_are_refused(arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        ClassWeighted(**arguments)


def test_bad_shapes_are_refused():
    loss = ClassWeighted("penalized_crossentropy", WEIGHTS)
    with pytest.raises(ValueError, match="y_true"):
        loss(np.zeros((4, 2)), np.zeros((4, 3)))


# Labels that are void, soft, or independent of each other.


def test_a_void_label_stays_left_out():
    labels = np.array([0, 255, 2, 1, 255, 2])
    kept = labels != 255
    theirs = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=255
    )
    ours = kp.losses.PenalizedCrossentropy(ignore=255)
    expected = np.array(WEIGHTS)[labels[kept]] * crossentropy(
        labels[kept], LOGITS[kept]
    )
    for inner, ignore in ((theirs, None), (ours, None), (SPARSE, 255)):
        loss = ClassWeighted(inner, WEIGHTS, ignore=ignore)
        for y in (labels, labels[:, None]):
            pair = autodiff.value_and_gradient(
                lambda z, y=y, loss=loss: loss(y, z), ops.convert_to_tensor(LOGITS)
            )
            value, gradient = map(ops.convert_to_numpy, pair)
            np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
            assert np.all(np.isfinite(gradient))
            np.testing.assert_array_equal(gradient[~kept], 0.0)
    image = ClassWeighted(theirs, WEIGHTS)
    came = image(labels.reshape(1, 2, 3), LOGITS.reshape(1, 2, 3, 3))
    np.testing.assert_allclose(came, expected.mean(), rtol=1e-5)
    nobody = np.full(6, 255)
    assert float(ClassWeighted(theirs, WEIGHTS)(nobody, LOGITS)) == 0.0


def test_a_soft_binary_label_weighs_both_classes():
    y, logits = np.array([[0.9], [0.0], [1.0]]), np.zeros((3, 1))
    loss = ClassWeighted(BINARY, [1.0, 10.0])
    expected = np.array([0.1 + 9.0, 1.0, 10.0]) * np.log(2.0)
    for labels in (y, y[:, 0]):
        close(samples(loss, labels, logits), expected, 10.0)
    assert np.isnan(float(loss(np.array([[1.5]]), logits[:1])))


def test_independent_labels_have_weights_of_their_own():
    y, logits = np.array([[1.0, 0.0], [0.25, 1.0]]), normal((2, 2), 5)
    entries = y * np.log1p(np.exp(-logits)) + (1 - y) * np.log1p(np.exp(logits))
    for weights in ([1.0, 10.0], [[1.0, 10.0], [0.5, 3.0]]):
        pairs = np.broadcast_to(weights, (2, 2))
        heavy = entries * (y * pairs[:, 1] + (1 - y) * pairs[:, 0])
        expected = heavy.mean(-1)
        for inner in (BINARY, "asymmetric_loss(0.0, 0.0, 0.0)"):
            loss = ClassWeighted(inner, weights, multi_label=True)
            np.testing.assert_allclose(samples(loss, y, logits), expected, rtol=1e-5)
            again = ClassWeighted.from_config(loss.get_config())
            assert again.get_config() == loss.get_config()
    unknown = ClassWeighted(BINARY, weights, multi_label=True, ignore=-1)
    y[1, 0] = -1
    expected = (heavy[0].mean() + heavy[1, 1]) / 2
    assert float(unknown(y, logits)) == pytest.approx(expected, rel=1e-5)


def test_a_row_that_is_no_distribution_is_refused():
    loss = ClassWeighted(BINARY, [1.0, 10.0])
    for row in ([0.0, 0.0], [1.0, 1.0], [-1.0, 2.0], [0.5, 0.2]):
        with pytest.raises(ValueError, match="multi_label=True"):
            loss(np.array([row]), np.full((1, 2), 9.0))
    padded = np.array([[0.0, 1.0], [0.0, 0.0]])
    came = float(loss(padded, np.zeros((2, 2)), np.array([1.0, 0.0])))
    assert came == pytest.approx(10.0 * np.log(2.0) / 2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    model.compile("sgd", loss)
    if BACKEND == "torch":  # which sees the values in `evaluate` too
        with pytest.raises(ValueError, match="multi_label=True"):
            model.evaluate(np.ones((2, 2)), padded, verbose=0)
    else:
        assert np.isnan(model.evaluate(np.ones((2, 2)), padded, verbose=0))


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0], [1.0]], [[1.0, -2.0]]]
)
def test_weights_of_independent_labels_come_in_pairs(weights):
    with pytest.raises(ValueError, match="`weights`"):
        ClassWeighted(BINARY, weights, multi_label=True)


def test_what_several_labels_cannot_have_is_refused():
    with pytest.raises(ValueError, match="multi_label"):
        ClassWeighted(BINARY, [[1.0, 2.0], [1.0, 2.0]])
    inner = kp.losses.AsymmetricLoss(ignore=-1)
    with pytest.raises(ValueError, match="ignore"):
        ClassWeighted(inner, [1.0, 2.0], multi_label=True)
    loss = ClassWeighted(BINARY, [[1.0, 2.0], [1.0, 2.0]], multi_label=True)
    with pytest.raises(ValueError, match="2 labels"):
        loss(np.zeros((4, 3)), np.zeros((4, 3)))


def test_rivals_that_are_absent_are_absent_from_a_weighted_loss_too():
    ids, rows = np.array([0, 0, 1, 1, 0]), normal((5, 3))
    loss = ClassWeighted(kp.losses.NTXent(), [1.0, 3.0])
    weight = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    expected = float(loss(ids[:4], rows[:4])) * 0.8
    # Labels stand for classes here, and for pairs in the loss within.
    assert float(loss(ids, rows, weight)) == pytest.approx(expected, rel=1e-5)
