"""`penalize` and `strip`: right on the models that people have."""

import existing_models
import keras
import numpy as np
import pytest
from existing_models import numbers
from keras import layers
from penalized_proof import array, check, check_reload, loss_of, total

import keras_penalties as kp

DONE = {}
"""The penalised models, for the test that reloads them all in one fresh process."""


@pytest.mark.slow_on_tensorflow
@pytest.mark.filterwarnings("ignore:Terms do not act")
@pytest.mark.parametrize("build", existing_models.FAST, ids=lambda f: f.__name__)
def test_total_step_and_names(build):
    case = build()
    tolerance = 2e-2 if build is existing_models.mixed else 1e-5
    DONE[build.__name__] = (check(case, tolerance), case.x, case.y)
    terms = kp.terms(DONE[build.__name__][0])
    assert sum(t.acts for t in terms) == len(case.squares)
    assert len(terms) == len(case.squares) + len(case.frozen)


@pytest.mark.slow_on_tensorflow
@pytest.mark.filterwarnings("ignore:Terms do not act")
def test_all_of_them_reload_in_a_fresh_process(tmp_path, fresh_process):
    assert len(DONE) == len(existing_models.FAST), "runs after the tests above"
    DONE.pop("lora")  # see below
    check_reload(DONE, tmp_path, fresh_process)


@pytest.mark.filterwarnings("ignore:Terms do not act")
def test_lora_comes_back_merged_into_the_kernel(tmp_path):
    """So Keras has it: the factors are 0 after a reload, and so is a term on them."""
    case = existing_models.lora()
    case.model.compile("sgd", "mse")
    model = kp.penalize(case.model, case.rules)
    expected = loss_of(case.model, case.x, case.y) + total(case.squares[2:])
    model.save(tmp_path / "lora.keras")
    again = keras.saving.load_model(tmp_path / "lora.keras")
    close(loss_of(again, case.x, case.y), expected)
    assert [t.target for t in kp.terms(again) if t.acts] == [
        "head/kernel",
        "dense/lora_kernel_a",
        "dense/lora_kernel_b",
    ]


def simple(*dense, **compiled):
    """A functional model of dense layers and a batch."""
    inputs = x = keras.Input((3,))
    for layer in dense:
        x = layer(x)
    model = keras.Model(inputs, x, name="simple")
    model.compile(**compiled or {"optimizer": "sgd", "loss": "mse"})
    return model, numbers(6, 3), numbers(6, int(x.shape[-1]))


def added(plain, model, x, y):
    """What the penalised model adds to the loss."""
    return loss_of(model, x, y) - loss_of(plain, x, y)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_lora_after_penalize_stops_the_kernels_term_and_finds_the_new_weights():
    dense = layers.Dense(2, name="dense")
    plain, x, y = simple(dense)
    model = kp.penalize(plain, {"kernel": "l2(0.1)"})
    close(added(plain, model, x, y), total([(dense.kernel, 0.1)]))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(numbers(2, 2))
    for each in (plain, model):
        each.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="frozen: dense/kernel"):
        close(added(plain, model, x, y), 0.0)
    again = kp.penalize(model, {"lora_.*": "l2(0.2)"})
    pair = [(dense.lora_kernel_a, 0.2), (dense.lora_kernel_b, 0.2)]
    close(added(plain, again, x, y), total(pair))


def test_quantizing_later_stops_the_term_and_says_so():
    dense = layers.Dense(2, name="dense")
    plain, x, y = simple(dense)
    model = kp.penalize(plain, {"kernel": "l2(0.1)", "bias": "l2(0.2)"})
    dense.bias.assign([1.0, 2.0])
    with pytest.warns(UserWarning, match="quantize"):
        model.quantize("int8")
    for each in (plain, model):
        each.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="frozen: dense/kernel"):
        close(added(plain, model, x, y), total([(dense.bias, 0.2)]))
    with pytest.raises(ValueError, match="keys that fit a weight that training can"):
        kp.penalize(plain, {"kernel": "l2(0.1)"})


def test_inside_a_larger_plain_model_and_stripped_there():
    dense = layers.Dense(2, name="dense")
    inner, x, _ = simple(dense)
    model = kp.penalize(inner, {"kernel": "l2(0.1)"})
    inputs, head = keras.Input((3,)), layers.Dense(1, name="head")
    larger = keras.Model(inputs, head(model(inputs)))
    larger.compile("sgd", "mse")
    y = numbers(6, 1)
    plain = kp.strip(larger)
    close(added(plain, larger, x, y), total([(dense.kernel, 0.1)]))
    assert [w.path for w in plain.weights] == [w.path for w in inner.weights] + [
        w.path for w in head.weights
    ]
    assert "ModelPenalty" not in plain.to_json()
    assert "ModelPenalty" in larger.to_json()


def test_a_layer_in_two_models_counts_once():
    """Keras can't reload such a model, not even the plain one: no case of the table."""
    dense, a = layers.Dense(3, "tanh", name="shared"), keras.Input((3,))
    inner = keras.Model(a, dense(a), name="inner")
    x = keras.Input((3,))
    plain = keras.Model(x, inner(dense(dense(x))))
    plain.compile("sgd", "mse")
    for key in ("kernel", "inner/shared/kernel", "shared/kernel", layers.Dense):
        model = kp.penalize(plain, {key: "l2(0.1)"})
        batch = numbers(6, 3), numbers(6, 3)
        close(added(plain, model, *batch), total([(dense.kernel, 0.1)]))
        assert len(kp.terms(model)) == 1


def test_clone_model_finds_the_weights_of_the_clone():
    dense = layers.Dense(2, name="dense")
    plain, x, y = simple(dense)
    model = kp.penalize(plain, {"kernel": "l2(0.1)"})
    clone = keras.models.clone_model(model)
    clone.compile("sgd", "mse")
    kernel = clone.get_layer("dense").kernel
    kernel.assign(np.full((3, 2), 3.0))
    close(added(kp.strip(clone), clone, x, y), 0.1 * 6 * 9.0)


def test_rules_of_two_calls_add_and_equal_ones_are_refused():
    dense = layers.Dense(2, name="dense")
    plain, x, y = simple(dense)
    once = kp.penalize(plain, {"kernel": "l2(0.1)"})
    twice = kp.penalize(once, {"kernel": "l1(0.3)"})
    l1 = 0.3 * np.abs(array(dense.kernel)).sum()
    close(added(plain, twice, x, y), total([(dense.kernel, 0.1)]) + l1)
    logs = twice.evaluate(x, y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "kernel_l2", "kernel_2_l1"}
    for rules in ({layers.Dense: "l2(1.0)"}, {"kernel": "l1(1.0)"}):
        with pytest.raises(ValueError, match="Add the strengths"):
            kp.penalize(twice, rules)
    with pytest.raises(ValueError, match="Add the strengths"):
        kp.penalize(plain, {"kernel": "l2(0.1)", layers.Dense: "l2(0.2)"})
    assert kp.penalize(plain, {"kernel": "l2(0.5)"}) is not once  # another model


def test_what_a_slot_a_layer_or_an_optimizer_has_already_is_refused():
    slot, _, _ = simple(layers.Dense(2, kernel_regularizer="l2"))
    dense = layers.Dense(2, name="dense")
    wrapped, _, _ = simple(kp.layers.Penalized(dense, weights={"kernel": "l2(0.1)"}))
    _ = wrapped(numbers(6, 3))
    sparse = kp.optimizers.Proximal("sgd", {"kernel": "l2(0.1)"})
    proximal, _, _ = simple(layers.Dense(2), optimizer=sparse, loss="mse")
    for plain in (slot, wrapped, proximal):
        with pytest.raises(ValueError, match="Add the strengths"):
            kp.penalize(plain, {".*kernel": "l2(0.1)"})
        kp.penalize(plain, {".*kernel": "l1(0.1)"})


def test_a_proximal_optimizer_sees_what_the_host_has_until_it_is_stripped():
    plain, x, y = simple(layers.Dense(2))
    model = kp.penalize(plain, {"kernel": "l1(0.1)"})
    sparse = kp.optimizers.Proximal("sgd", {"kernel": "l1(0.1)"})
    model.compile(sparse, "mse")
    with pytest.raises(ValueError, match="Add the strengths"):
        model.train_on_batch(x, y)
    kp.strip(model)
    sparse = kp.optimizers.Proximal("sgd", {"kernel": "l1(0.1)"})
    plain.compile(sparse, "mse")
    plain.train_on_batch(x, y)


def test_outputs_of_layers_also_in_models_inside_and_called_twice():
    code = layers.Dense(2, "sigmoid", name="code")
    a = keras.Input((3,))
    encoder = keras.Model(a, code(layers.Dense(3, name="hidden")(a)), name="encoder")
    inputs, head = keras.Input((3,)), layers.Dense(1, name="head")
    twice = layers.Dense(3, name="twice")
    outputs = head(encoder(twice(twice(inputs))))
    plain = keras.Model(inputs, outputs)
    plain.compile("sgd", "mse")
    rules = {
        "encoder/code": {"outputs": "kl_sparsity(3, rate=0.05)"},
        "twice": {"outputs": "l1(0.1)"},
    }
    model = kp.penalize(plain, rules)
    x, y = numbers(6, 3), numbers(6, 1)
    one = twice(x)
    mean = array(encoder(twice(one))).mean(axis=0)
    kl = np.sum(0.05 * np.log(0.05 / mean) + 0.95 * np.log(0.95 / (1 - mean)))
    l1 = (np.abs(array(one)).sum() + np.abs(array(twice(one))).sum()) / 6
    close(added(plain, model, x, y), 3 * kl + 0.1 * l1)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    close(logs["encoder_code_output_kl_sparsity"], 3 * kl)
    again = keras.Model.from_config(model.get_config())
    assert [t.target for t in kp.terms(again)] == ["encoder/code", "twice"]
    with pytest.raises(ValueError, match="one of that model's outputs"):
        kp.penalize(plain, {"encoder/hidden": {"outputs": "l1(0.1)"}})


def test_a_masked_output_counts_without_what_is_masked():
    words = layers.Embedding(5, 2, mask_zero=True, name="words")
    inputs = keras.Input((4,), dtype="int32")
    plain = keras.Model(inputs, layers.LSTM(1)(words(inputs)))
    plain.compile("sgd", "mse")
    model = kp.penalize(plain, {"words": {"outputs": "l1(0.1)"}})
    x, y = np.array([[1, 2, 0, 0], [3, 0, 0, 0]]), numbers(2, 1)
    used = np.abs(array(words.embeddings))[[1, 2, 3]].sum()
    close(added(plain, model, x, y), 0.1 * used / 2)


@pytest.mark.parametrize("log", ["rule", "weight", False])
def test_logs_by_rule_by_weight_or_none(log):
    ramp = keras.optimizers.schedules.PolynomialDecay(0.1, 10, 1.0)
    first, last = layers.Dense(2, name="first"), layers.Dense(1, name="last")
    plain, x, y = simple(first, last)
    rules = {layers.Dense: kp.penalties.L2(ramp), "bias": "l1(0.1) + l2(0.2)"}
    model = kp.penalize(plain, rules, log=log)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    names = {
        "rule": {"dense_l2", "dense_l2_strength", "bias_l1", "bias_l2"},
        "weight": {f"{n}_kernel_l2{s}" for n in ("first", "last")
                   for s in ("", "_strength")}
        | {f"{n}_bias_{p}" for n in ("first", "last") for p in ("l1", "l2")},
        False: set(),
    }  # fmt: skip
    assert set(logs) == {"loss", *names[log]}
    values = [total([(layer.kernel, 0.1)]) for layer in (first, last)]
    if log == "rule":
        close([logs["dense_l2"], logs["dense_l2_strength"]], [sum(values), 0.1])
    if log == "weight":
        close([logs["first_kernel_l2"], logs["last_kernel_l2"]], values)
    assert len(kp.terms(model)) == 6
    kp.set_strength(model, "first_bias_l1", 0.5)
    assert [t.strength for t in kp.terms(model) if t.name == "first_bias_l1"] == [0.5]


def test_penalized_logs_by_rule():
    both = {"kernel": "l2(0.1)", "bias": "l2(0.2)"}
    for log, names in (
        ("rule", {"dense_l2"}),
        ("weight", {"dense_kernel_l2", "dense_bias_l2"}),
        (False, set()),
    ):
        dense = layers.Dense(2, name="dense")
        layer = kp.layers.Penalized(dense, weights=both, log=log)
        model, x, y = simple(layer)
        dense.bias.assign([1.0, 2.0])
        logs = model.evaluate(x, y, verbose=0, return_dict=True)
        assert set(logs) == {"loss", *names}
        if log == "rule":
            close(logs["dense_l2"], total([(dense.kernel, 0.1), (dense.bias, 0.2)]))


def test_frozen_weights_are_named_in_one_warning():
    names = [f"d{i}" for i in range(7)]
    plain, x, y = simple(*(layers.Dense(3, name=name) for name in names))
    plain.trainable = False
    model = kp.penalize(plain, {"kernel": "l2(0.1)"})
    assert model.trainable_weights == []
    with pytest.warns(UserWarning, match=r"frozen: d0/kernel.* and 2 more") as said:
        model.evaluate(x, y, verbose=0)
    assert len([w for w in said if "do not act" in str(w.message)]) == 1
    model.trainable = True
    model.compile("sgd", "mse")
    squares = [(layer.kernel, 0.1) for layer in plain.layers[1:]]
    plain.compile("sgd", "mse")
    close(added(plain, model, x, y), total(squares))


def test_a_weight_that_is_gone_is_said():
    plain, x, y = simple(layers.Dense(2, name="dense"))
    host = kp.layers.ModelPenalty(
        [{"name": "lost", "weights": ["dense/lora_kernel_a"], "penalty": "l2"}]
    )
    model = keras.Model(plain.input, host(plain.output))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="not in the model: dense/lora_kernel_a"):
        close(added(plain, model, x, y), 0.0)
    assert [t.acts for t in kp.terms(model)] == [False]


def test_files_of_weights_go_both_ways(tmp_path):
    plain, x, y = simple(layers.Dense(2, name="a"), layers.Dense(2, name="b"))
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0)
    model = kp.penalize(plain, {"kernel": kp.penalties.L2(ramp)})
    model.fit(x, y, epochs=2, verbose=0)
    model.save_weights(tmp_path / "penalised.weights.h5")
    plain.save_weights(tmp_path / "plain.weights.h5")
    other = keras.models.clone_model(plain)
    others = kp.penalize(other, {"kernel": kp.penalties.L2(ramp)})
    for target, file in (
        (other, "penalised"),
        (others, "plain"),
        (others, "penalised"),
    ):
        other.set_weights([np.zeros(w.shape) for w in other.weights])
        target.load_weights(tmp_path / f"{file}.weights.h5")
        for a, b in zip(other.weights, plain.weights, strict=True):
            close(array(a), array(b), 0.0)
        steps = int(others.layers[-1].steps)
        assert steps == (2 if target is others and file == "penalised" else 0)


def test_how_the_model_is_compiled_is_kept():
    first, last = layers.Dense(2, name="first"), layers.Dense(1, name="last")
    inputs = keras.Input((3,))
    hidden = first(inputs)
    plain = keras.Model(inputs, [hidden, last(hidden)])
    plain.compile(
        keras.optimizers.Adam(0.1),
        loss={"first": "mse", "last": lambda y, p: keras.ops.abs(y - p)},
        loss_weights={"first": 2.0, "last": 1.0},
        metrics={"last": "mae"},
    )
    x, y = numbers(6, 3), [numbers(6, 2), numbers(6, 1)]
    plain.fit(x, y, verbose=0)
    model = kp.penalize(plain, {"kernel": "l2(0.1)"})
    expected = plain.evaluate(x, y, verbose=0, return_dict=True)
    expected["kernel_l2"] = total([(first.kernel, 0.1), (last.kernel, 0.1)])
    expected["loss"] += expected["kernel_l2"]
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(logs) == set(expected)
    for name, value in expected.items():
        close(logs[name], value)
    model.fit(x, y, verbose=0)
    assert int(model.optimizer.iterations) == 2
    plain.output_names = ["mine", "yours"]  # people do that
    assert plain.output_names == ["mine", "yours"]


def test_strip_gives_the_plain_model_back():
    plain, x, _ = simple(layers.Dense(2, name="a"), layers.Dense(2, name="b"))
    rules = {"kernel": "l2(0.1)", "a": {"outputs": "l1(0.1)"}}
    model = kp.penalize(kp.penalize(plain, rules), {"bias": "l1(0.1)"})
    back = kp.strip(model)
    assert list(map(id, back.layers)) == list(map(id, plain.layers))
    assert back.optimizer is plain.optimizer
    assert not kp.terms(back)
    assert back.to_json() == plain.to_json()
    np.testing.assert_array_equal(array(back(x)), array(plain(x)))
    assert kp.strip(plain) is plain


def test_keys_that_are_functions_and_strengths_that_move():
    dense = layers.Dense(2, name="dense")
    plain, x, y = simple(dense)

    def large(address, weight):
        return address == "dense/kernel" and len(weight.shape) == 2

    target = kp.penalties.L1(kp.Target(0.5, of="density"))
    named = {lambda address, layer: address == "dense": {"bias": "l2(0.1)"}}
    model = kp.penalize(plain, {large: target, **named})
    logs = model.fit(x, y, verbose=0).history
    assert set(logs) == {"loss", "large_l1", "large_l1_strength", "weights_bias_l2"}
    rules = model.layers[-1].get_config()["rules"]
    assert [r["weights"] for r in rules] == [["dense/kernel"], ["dense/bias"]]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)


class OwnConstructor(keras.Model):
    def __init__(self, units):
        x = keras.Input((3,))
        super().__init__(x, layers.Dense(units)(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Subclassed, "Subclassed has a `call`.*kp.optimizers.Penalizing.*'l2"),
        (lambda: OwnConstructor(2), r"Penalizing.*keras.Model\(model.inputs"),
        (lambda: keras.Sequential([layers.Dense(1)]), "a built model"),
        (lambda: layers.Dense(1), "instance of Model"),
    ],
)
def test_models_without_a_graph_are_refused_with_the_way_out(model, words):
    with pytest.raises(ValueError, match=words):
        kp.penalize(model(), {"kernel": "l2"})


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, "a dict of {key: penalty}, not empty"),
        ("l2", "a dict of {key: penalty}"),
        ({"densee/kernel": "l2"}, "Did you mean 'dense/kernel'"),
        ({"(": "l2"}, "regular expressions"),
        ({3: "l2"}, "patterns, classes of layers, or functions"),
        ({int: "l2"}, "patterns, classes of layers, or functions"),
        ({layers.BatchNormalization: "l2"}, r"say which: {'gamma': penalty}"),
        ({layers.Dense: {"gamma": "l2"}}, "a layer with a weight 'gamma'"),
        ({"den": {"outputs": "l2"}}, "keys that fit a layer.*Did you mean 'dense'"),
        ({"kernel": "kl_sparsity"}, "no statistic"),
        ({"bias": "spectral(l1(0.1))"}, "rank 1 at most"),
        ({"kernel": "l22"}, "Unknown penalty"),
        ({"kernel": "box"}, "is a constraint"),
    ],
)
def test_bad_rules_are_refused(rules, words):
    plain, _, _ = simple(
        layers.Dense(2, name="dense"), layers.BatchNormalization(name="norm")
    )
    with pytest.raises(ValueError, match=words):
        kp.penalize(plain, rules)


def test_the_host_alone_says_how_to_use_it():
    rule = {"name": "a", "weights": ["dense/kernel"], "penalty": "l2"}
    with pytest.raises(ValueError, match="penalize"):
        kp.layers.ModelPenalty([rule])(numbers(2, 3))
    for bad in ({}, {**rule, "outputs": ["a"]}, {"name": "a", "penalty": "l2"}, 3):
        with pytest.raises(ValueError, match="rules"):
            kp.layers.ModelPenalty([bad])
    with pytest.raises(ValueError, match="log"):
        kp.layers.ModelPenalty([rule], log="all")
