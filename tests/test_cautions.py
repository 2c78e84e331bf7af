"""What a host says once: a term that does not do what it seems to do."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_penalties as kp

X = np.ones((2, 3), "float32")
KL = "kl_sparsity(0.1)"


@pytest.mark.parametrize("activation", ["relu", "tanh", None])
def test_kl_sparsity_on_other_numbers_than_probabilities_is_said(activation):
    x = keras.Input((3,))
    with pytest.warns(UserWarning, match=r"KLSparsity .*\(0, 1\).*'code'.*sigmoid"):
        kp.layers.ActivityPenalty(KL)(layers.Dense(2, activation, name="code")(x))
    with pytest.warns(UserWarning, match=r"KLSparsity .*\(0, 1\).*'code'.*sigmoid"):
        kp.layers.Penalized(layers.Dense(2, activation, name="code"), outputs=KL)


def test_nothing_is_said_where_all_is_well():
    x = keras.Input((3,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kp.layers.ActivityPenalty(KL)(layers.Dense(2, "sigmoid")(x))
        kp.layers.ActivityPenalty("l1(0.1)")(layers.Dense(2, "relu")(x))
        kp.layers.Penalized(layers.Dense(2, "sigmoid"), outputs=KL)(X)
        kp.layers.ActivityPenalty(KL)(layers.Rescaling(0.5)(x))  # nobody knows


def lora_model(target):
    dense = layers.Dense(4, name="line")
    dense.build((None, 3))
    dense.enable_lora(2)
    layer = kp.layers.Penalized(dense, weights={target: "l2(0.1)"})
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse")
    return model, dense


def test_a_kernel_under_lora_is_frozen_and_the_adapters_are_named():
    model, _ = lora_model("line/kernel")
    with pytest.warns(
        UserWarning, match=r"line/kernel is frozen by `enable_lora`.*_a'"
    ):
        model.fit(X, np.ones((2, 4)), verbose=0)


def test_adapters_that_came_back_as_zeros_are_void():
    model, dense = lora_model("lora_kernel_b")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kp.terms(model)  # one side alone starts at zero
    dense.lora_kernel_a.assign(0.0 * dense.lora_kernel_a)
    with pytest.warns(UserWarning, match=r"lora_kernel_b' is void.*all zeros"):
        kp.terms(model)
