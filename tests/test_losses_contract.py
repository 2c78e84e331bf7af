"""What every loss must bear: extremes, half floats, masks, one sample, a compiler."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import cases
from loss_proofs import samples, slope
from strategies import BACKEND

from keras_penalties import autodiff, compat
from keras_penalties.losses.base import BatchLoss

LOSSES = [pytest.param(make(), id=name) for name, make in cases("loss")]
EVERY = pytest.mark.parametrize("loss", LOSSES)
ONE_BACKEND = pytest.mark.one_backend


def data(loss, batch=6, seed=0):
    return loss.example_data(np.random.default_rng(seed), batch)


def of_batch(loss):
    """Whether a sample's value depends on the others."""
    return isinstance(loss, BatchLoss)


@EVERY
def test_extreme_predictions_are_finite(loss):
    y_true, y_pred = data(loss)
    signs = np.where(np.arange(y_pred.size).reshape(y_pred.shape) % 2, 1.0, -1.0)
    # One batch holds rows of all kinds: low, high, mixed and its opposite.
    signs[0], signs[1], signs[2] = 1.0, -1.0, -signs[3]
    for extreme in (1e4 * signs, -1e4 * signs):
        assert np.all(np.isfinite(samples(loss, y_true, extreme, "float32")))
        assert np.all(np.isfinite(slope(loss, y_true, extreme, "float32")))
        assert np.all(np.isfinite(samples(loss, y_true, extreme, "float16")))


@EVERY
def test_a_misspelt_option_is_named(loss):
    with pytest.raises(ValueError, match=r"'nmae'.*'name'"):
        type(loss).from_config({**loss.get_config(), "nmae": "other"})


@EVERY
def test_the_config_has_every_argument_of_the_bases(loss):
    options = {"name": "other", "reduction": "sum", "dtype": "float16"}
    config = type(loss).from_config({**loss.get_config(), **options}).get_config()
    assert options.items() <= config.items()
    assert list(config)[-4:] == [*options, "ignore"]


@EVERY
def test_one_sample_is_enough(loss):
    y_true, y_pred = data(loss, batch=1)
    values = samples(loss, y_true, y_pred)
    assert values.shape == (1,)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(slope(loss, y_true, y_pred)))


@EVERY
def test_a_masked_sample_does_not_count(loss):
    y_true, y_pred = data(loss)
    y_pred[[1, 4]] = 0.0
    masked = keras.layers.Masking()(ops.convert_to_tensor(y_pred, "float32"))
    kept = [0, 2, 3, 5]
    expected = samples(loss, y_true[kept], y_pred[kept], "float32").mean()
    assert float(loss(y_true, masked)) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    alone = float(loss(y_true[kept], y_pred[kept]))
    assert alone == pytest.approx(expected, rel=1e-5, abs=1e-6)
    nobody = keras.layers.Masking()(ops.zeros(y_pred.shape))
    assert float(loss(y_true, nobody)) == 0.0


@pytest.mark.slow
@EVERY
def test_what_does_not_count_has_no_gradient(loss):
    """Weights of zero, a mask of nobody, and half floats, in value and gradient."""
    y_true, y_pred = data(loss)
    y_pred = ops.convert_to_tensor(y_pred, "float32")
    nobody, weightless = np.zeros(6, bool), np.zeros(6, "float32")

    def masked(y):
        return loss(y_true, compat.carry_mask(y * 1.0, ops.convert_to_tensor(nobody)))

    for function in (masked, lambda y: loss(y_true, y, weightless)):
        value, gradient = autodiff.value_and_gradient(function, y_pred)
        assert float(value) == 0.0
        np.testing.assert_array_equal(ops.convert_to_numpy(gradient), 0.0)
    half = ops.cast(y_pred, "float16")
    for x in (half, 1e4 * ops.sign(half)):
        result = autodiff.value_and_gradient(lambda y: loss(y_true, y), x)
        value, gradient = map(ops.convert_to_numpy, result)
        assert np.isfinite(value)
        # Above 65504 a gradient in float16 is infinite, which loss scaling looks for.
        assert not np.any(np.isnan(gradient))
        assert x is not half or np.all(np.isfinite(gradient))


@EVERY
def test_more_axes_are_more_samples(loss):
    if of_batch(loss):
        pytest.skip("its samples are the rows of one batch")
    y_true, y_pred = data(loss)
    values = samples(loss, y_true, y_pred)
    y_true = y_true.reshape(2, 3, *y_true.shape[1:])
    y_pred = y_pred.reshape(2, 3, *y_pred.shape[1:])
    stepwise = samples(loss, y_true, y_pred)
    np.testing.assert_allclose(stepwise, values.reshape(2, 3), rtol=1e-6, atol=1e-7)


@EVERY
@pytest.mark.skipif(BACKEND == "torch", reason="torch runs eagerly")
def test_compiled_for_any_batch_size_it_is_the_same(loss):
    y_true, y_pred = data(loss)
    y_true, y_pred = ops.convert_to_tensor(y_true), y_pred.astype("float32")

    def both(y_true, y_pred):
        return autodiff.value_and_gradient(lambda y: loss(y_true, y), y_pred)

    expected = both(y_true, ops.convert_to_tensor(y_pred))
    for result, wanted in zip(compiled(both)(y_true, y_pred), expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=2e-5, atol=2e-5)


def compiled(fn):
    """The function under the backend's compiler, on TensorFlow for unknown shapes."""
    if BACKEND == "jax":
        import jax

        return jax.jit(fn)
    import tensorflow as tf

    def for_any_batch(*tensors):
        tensors = [tf.convert_to_tensor(t) for t in tensors]
        specs = [tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in tensors]
        return tf.function(fn, input_signature=specs)(*tensors)

    return for_any_batch


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [  # TensorFlow compiles for two seconds: there CI takes each class' first example
        pytest.param(make(), id=name, marks=() if name.endswith("-0") else ONE_BACKEND)
        for name, make in cases("loss")
    ],
)
def test_fit_trains_by_it(loss, tmp_path):
    """Keras compiles the whole step, with XLA on TensorFlow; the file reloads."""
    y_true, y_pred = data(loss, batch=8)
    x = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
    dense = keras.layers.Dense(y_pred.shape[-1])
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    # Two long epochs: TensorFlow takes longer to start one than for its steps.
    often = [np.concatenate([a] * 15) for a in (x, y_true)]
    fitted = model.fit(*often, epochs=2, batch_size=8, shuffle=False, verbose=0)
    losses = fitted.history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    result = again.evaluate(x, y_true, verbose=0)
    assert result == pytest.approx(model.evaluate(x, y_true, verbose=0), rel=1e-5)
