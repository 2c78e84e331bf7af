"""String names: in `compile`, in slots, in `get`, and what a clash says."""

import inspect

import keras
import numpy as np
import pytest

import keras_penalties as kp
from keras_penalties.registry import lookup, registered, snake_case

X = np.random.default_rng(0).random((8, 3)).astype("float32")
Y = np.random.default_rng(1).random((8, 2)).astype("float32")
OURS = "keras_penalties>HalfSumSquaredError"


def model_with(**dense):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, **dense)])


def half_sum_by_hand(model):
    return 0.5 * np.sum((model.predict(X, verbose=0) - Y) ** 2, axis=-1).mean()


@pytest.mark.parametrize(
    "loss",
    [
        "half_sum_squared_error",
        OURS,
        ["half_sum_squared_error"],
        kp.losses.HalfSumSquaredError(),
        kp.losses.HalfSumSquaredError,
    ],
)
def test_compile_takes_every_form(loss):
    model = model_with()
    model.compile("sgd", loss=loss)
    expected = half_sum_by_hand(model)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)
    model.fit(X, Y, verbose=0)
    assert half_sum_by_hand(model) < expected


@pytest.mark.parametrize(
    "loss",
    [{"a": "half_sum_squared_error", "b": OURS}, ["half_sum_squared_error", OURS]],
)
def test_compile_takes_strings_for_several_outputs(loss):
    inputs = keras.Input((3,))
    outputs = {n: keras.layers.Dense(2, name=n)(inputs) for n in ("a", "b")}
    targets = {"a": Y, "b": Y}
    if isinstance(loss, list):
        outputs, targets = list(outputs.values()), [Y, Y]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss=loss)
    predictions = keras.tree.flatten(model.predict(X, verbose=0))
    expected = sum(0.5 * np.sum((p - Y) ** 2, axis=-1).mean() for p in predictions)
    logs = model.evaluate(X, targets, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_name_of_keras_stays_keras_own():
    dense = keras.layers.Dense(2, kernel_regularizer="l1")
    assert type(dense.kernel_regularizer) is keras.regularizers.L1
    dense = keras.layers.Dense(2, kernel_regularizer="keras_penalties>L1")
    assert type(dense.kernel_regularizer) is kp.penalties.L1
    dense = keras.layers.Dense(2, kernel_regularizer="elastic_net")
    assert type(dense.kernel_regularizer) is kp.penalties.ElasticNet


def test_no_name_of_keras_was_replaced():
    from keras_penalties.compat import string_names

    for kind in ("loss", "penalty"):
        for entry in registered(kind, "keras_penalties"):
            assert keras.saving.get_registered_object(entry.key) is entry.obj
            assert string_names(kind)[entry.key] is entry.obj
        for name, holder in string_names(kind).items():
            if not holder.__module__.startswith("keras."):
                own = getattr(
                    keras.losses, name, getattr(keras.regularizers, name, None)
                )
                assert own is None, f"{name} is Keras' own"
    for name in ("mse", "mae", "huber", "Huber", "kl_divergence"):
        assert keras.losses.get(name).__module__.startswith("keras.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l1", kp.penalties.L1()),
        ("L1", kp.penalties.L1()),
        ("l1(0.001)", kp.penalties.L1(0.001)),
        ("keras_penalties>L1", kp.penalties.L1()),
        ("keras_penalties>L1(0.5)", kp.penalties.L1(0.5)),
        ("elastic_net(0.01, l1_ratio=0.3)", kp.penalties.ElasticNet(0.01, 0.3)),
        (" l1(1e-3) + l2(2) ", kp.penalties.L1(0.001) + kp.penalties.L2(2.0)),
        ("sum([l1(0.1), l2(0.2)])", kp.penalties.L1(0.1) + kp.penalties.L2(0.2)),
    ],
)
def test_get_parses(text, expected):
    assert kp.get(text) == expected
    assert kp.get(expected) is expected
    assert kp.get(keras.saving.serialize_keras_object(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("elastic_nett", "Did you mean 'elastic_net'"),
        ("l1(__import__('os').getcwd())", "Unknown penalty name"),
        ("l1(open('x'))", "Unknown penalty name"),
        ("l1(*[1])", "Invalid penalty string"),
        ("l1(**{'strength': 1})", "Invalid penalty string"),
        ("l1(0.1", "Invalid penalty string"),
        ("l1(x for x in y)", "Unknown penalty name"),
        ("l1(-1)", "argument `strength`"),
        ("half_sum_squared_error", "is a loss, not a penalty"),
        ("", "Unknown penalty name"),
    ],
)
def test_get_refuses(text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        kp.get(text)


def test_get_refuses_what_is_no_penalty():
    for bad in (3, None, keras.regularizers.L1(), OURS):
        with pytest.raises(ValueError, match="argument `identifier`"):
            kp.get(bad)


def test_losses_get():
    loss = kp.losses.get("half_sum_squared_error(reduction='sum', dtype='float32')")
    assert loss.reduction == "sum"
    assert kp.losses.get("mse") is keras.losses.mean_squared_error
    assert kp.losses.get(loss) is loss
    with pytest.raises(ValueError, match="Did you mean 'half_sum_squared_error'"):
        kp.losses.get("half_sum_squared_eror")


class TestTheUsersOwn:
    def test_function_loss_and_penalty(self):
        @kp.register(package="names_a")
        def users_error(y_true, y_pred):
            return (y_true - y_pred) ** 2

        @kp.register(package="names_a")
        class UsersLoss(kp.losses.Loss):
            def call(self, y_true, y_pred):
                return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

        @kp.register(package="names_a")
        class UsersPenalty(kp.penalties.Penalty):
            def compute_value(self, x):
                return keras.ops.sum(x**4)

        model = model_with(kernel_regularizer="users_penalty")
        for loss in ("users_error", "names_a>users_error", users_error, "users_loss"):
            model.compile("sgd", loss=loss)
            assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"][0])
        assert kp.get("users_penalty(0.5)").strength == 0.5
        assert "names_a>UsersPenalty" in {e.key for e in registered("penalty")}

    def test_a_keras_loss_class_of_the_user(self):
        @kp.register(package="names_b")
        class PlainKerasLoss(keras.losses.Loss):
            def call(self, y_true, y_pred):
                return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)

        assert isinstance(keras.losses.get("plain_keras_loss"), PlainKerasLoss)

    def test_a_clash_says_whose_name_it_is(self):
        with pytest.raises(ValueError, match="'mse' belongs to Keras"):

            @kp.register(package="names_c")
            def mse(y_true, y_pred):
                return y_true

        with pytest.raises(ValueError, match=r"belongs to keras_penalties\.losses"):

            @kp.register(package="names_c")
            def half_sum_squared_error(y_true, y_pred):
                return y_true

        @kp.register(package="names_c")
        def mine(y_true, y_pred):
            return y_true

        def mine_again(y_true, y_pred):
            return y_pred

        mine_again.__name__ = "mine"
        with pytest.raises(ValueError, match="'names_c>mine' is already registered"):
            kp.register(package="names_c")(mine_again)
        with pytest.raises(ValueError, match=r"The name 'mine' belongs to .*mine"):
            kp.register(package="names_d")(mine_again)
        kp.register(package="names_d", string_name=False)(mine_again)
        assert lookup("names_d>mine", "loss") is mine_again
        assert keras.losses.get("mine") is mine

    def test_a_subclass_does_not_land_under_our_name(self):
        class Steeper(kp.penalties.L1):
            pass

        assert keras.saving.get_registered_name(Steeper) == "Steeper"
        kp.register(package="names_e")(Steeper)
        assert keras.saving.get_registered_name(Steeper) == "names_e>Steeper"
        assert kp.get("l1").__class__ is kp.penalties.L1

    def test_a_script_must_name_its_package(self, fresh_process):
        source = (
            "import keras_penalties as kp\n"
            "try:\n"
            "    @kp.register\n"
            "    def f(a, b): return a\n"
            "except ValueError as e: print(e)\n"
        )
        assert "Argument `package` is required" in fresh_process(source)

    def test_what_is_no_class_or_function(self):
        with pytest.raises(TypeError, match="argument `obj`"):
            kp.register(package="names_f")(3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("KLSparsity", "kl_sparsity"), ("L1", "l1"), ("HuberL1", "huber_l1")],
)
def test_snake_case(name, expected):
    assert snake_case(name) == expected


PUBLIC = [kp, *(vars(kp)[n] for n in kp.__all__ if inspect.ismodule(vars(kp)[n]))]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_dir_shows_the_public_names_only(module):
    assert dir(module) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in dir(module))
    assert not {"annotations", "sys", "discover", "keras"} & set(dir(module))
