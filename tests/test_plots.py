"""The picture of a loss, from a `History` and from its dict."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_penalties as kp

pytestmark = pytest.mark.one_backend

pytest.importorskip("matplotlib").use("agg")
X = np.random.default_rng(0).random((8, 3)).astype("float32")


@pytest.fixture(scope="module")
def fitted():
    dense = layers.Dense(3, name="dense")
    weights = {"kernel": "l2(0.5) + l1(0.25)"}
    inputs = keras.Input((3,))
    hidden = kp.layers.Penalized(dense, weights=weights, outputs="l2(0.1)")(inputs)
    target = keras.Input((3,))
    out = kp.layers.AddLoss("mean_absolute_error", 0.5, name="gap")(
        hidden, y_true=target
    )
    model = keras.Model([inputs, target], out)
    model.compile("sgd", "mse", metrics=["mae"])
    return model.fit(
        [X, X], X, epochs=3, validation_data=([X, X], X), verbose=0, initial_epoch=1
    )


def drawn(axes):
    """The height of each layer of the stack, by its label."""
    handles, labels = axes.get_legend_handles_labels()
    heights = {}
    for handle, label in zip(handles, labels, strict=True):
        if label != "loss":
            (path,) = handle.get_paths()
            x = path.vertices[:, 0]
            first = path.vertices[x == x.min(), 1]
            heights[label] = first.max() - first.min()
    return heights


@pytest.mark.parametrize("validation", [False, True])
def test_a_history_and_its_dict_with_the_model_are_one_picture(fitted, validation):
    prefix = "val_" if validation else ""
    found = drawn(kp.plot_terms(fitted, validation=validation))
    model = fitted.model
    again = kp.plot_terms(fitted.history, validation=validation, model=model)
    assert drawn(again) == found
    names = ["dense_kernel_l2", "dense_kernel_l1", "dense_output_l2", "gap"]
    firsts = {n: fitted.history[prefix + n][0] for n in names}
    rest = fitted.history[f"{prefix}loss"][0] - sum(firsts.values())
    assert found == pytest.approx({"data loss": rest, **firsts}, rel=1e-4)


def test_a_dict_alone_says_what_its_names_say(fitted):
    """A loss' name is no penalty's, so the rest is not called data loss."""
    found = drawn(kp.plot_terms(fitted.history))
    names = {"dense_kernel_l2", "dense_kernel_l1", "dense_output_l2"}
    assert set(found) == {"loss without these", *names}


def test_an_entry_of_many_terms_is_drawn():
    """`penalize` logs one entry a rule: here the sum of two terms."""
    chain = [
        keras.Input((3,)),
        layers.Dense(4, name="one"),
        layers.Dense(3, name="two"),
    ]
    model = kp.penalize(keras.Sequential(chain), {".*kernel": "l2(0.5)"})
    # The optimizer's terms are not in the loss, and so not in its picture.
    model.compile(kp.optimizers.Proximal("sgd", {".*bias": "l1(0.1)"}), "mse")
    logged = kp.callbacks.LogTerms()
    history = model.fit(X, X, epochs=2, verbose=0, callbacks=[logged])
    assert "two_bias_l1" in history.history
    first = {name: values[0] for name, values in history.history.items()}
    rest = first["loss"] - first["kernel_l2"]
    found = drawn(kp.plot_terms(history))
    assert found == pytest.approx({"data loss": rest, "kernel_l2": first["kernel_l2"]})


def test_epochs_are_the_history_s_own(fitted):
    assert kp.plot_terms(fitted).lines[0].get_xdata().tolist() == [2, 3]
    assert kp.plot_terms(fitted.history).lines[0].get_xdata().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("history", "options"), [({"mae": [1.0]}, {}), ({"loss": [1.0]}, {"validation": 1})]
)
def test_a_history_without_a_loss_is_refused(history, options):
    with pytest.raises(ValueError, match=r"Invalid value for argument `history`"):
        kp.plot_terms(history, **options)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-penalties\[demo\]'"):
        kp.plot_terms({"loss": [1.0]})


def test_what_is_no_history_is_refused():
    with pytest.raises(ValueError, match=r"what `model.fit` returned"):
        kp.plot_terms([1.0, 2.0])
