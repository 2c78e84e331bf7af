"""What `summary` and `objective` say of a model is what Keras computes."""

import html.parser
import math
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import compat
from keras_penalties.docstrings import formula
from keras_penalties.explain.latex import latex, word
from keras_penalties.registry import registered

RNG = np.random.default_rng(0)
X = RNG.random((8, 4)).astype("float32")
Y = RNG.random((8, 3)).astype("float32")


def wide(x):
    return ops.convert_to_numpy(x).astype("float64")


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def dense(layer, x):
    kernel, bias = (wide(w) for w in layer.get_weights()[:2])
    return sigmoid(x @ kernel + bias)


def kl(x, rate):
    mean = x.mean(0)
    return np.sum(
        rate * np.log(rate / mean) + (1 - rate) * np.log((1 - rate) / (1 - mean))
    )


# Each formula by hand. `e` is y_true - y_pred, of which a loss has a value a sample.
TERMS = {
    "Σ|x|": lambda x: np.abs(x).sum(),
    "Σx²": lambda x: np.square(x).sum(),
    "l2·Σx²": lambda x, l2: l2 * np.square(x).sum(),
    "l1·Σ|x| + l2·Σx²": lambda x, l1, l2: (l1 * np.abs(x) + l2 * x**2).sum(),
    "Σ l1_ratio·|x| + ½(1 − l1_ratio)·x²": lambda x, l1_ratio: np.sum(
        l1_ratio * np.abs(x) + (1 - l1_ratio) * x**2 / 2
    ),
    "Σ_units KL(rate ‖ mean)": kl,
}
LOSSES = {
    "½·Σ(y_true − y_pred)²": lambda e: 0.5 * np.square(e).sum(-1),
    "mean(square(y_true - y_pred))": lambda e: np.square(e).mean(-1),
    "mean(abs(y_true - y_pred))": lambda e: np.abs(e).mean(-1),
    "huber_loss(y_true, y_pred)": lambda e, delta: np.where(
        np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2)
    ).mean(-1),
    "mean(square(y_true - y_pred), axis=-1)": lambda e: np.square(e).mean(-1),
    "mean(abs(y_true - y_pred), axis=-1)": lambda e: np.abs(e).mean(-1),
}
NUMBER = r"[-+.\de]+"
PRODUCT = re.compile(
    rf"(?:({NUMBER})(/n)? · )?(mean\[|sum\[|\[)?(.*?)(\])?(?: \+ ({NUMBER}))?"
)


def rows(text):
    """The summands of `loss`, as a reader finds them in the text."""
    head, *lines = text.split("\n")
    assert head == "loss ="
    for line in lines:
        if not line.startswith(" "):
            return
        _, product, where = re.split(r" {2,}", re.sub(r"^ *\+?", "  ", line))[:3]
        yield PRODUCT.fullmatch(product), dict(m.split(" = ") for m in _items(where))


def _items(where):
    return re.split(r", (?=\w+ = )", where) if " = " in where else []


def by_hand(text, targets, errors):
    """The loss that the text says, in NumPy."""
    total = 0.0
    for found, meanings in rows(text):
        factor, divided, bracket, written, _, constant = found.groups()
        value = float(factor or 1.0)
        numbers = {
            name: float(meaning)
            for name, meaning in meanings.items()
            if name not in ("x", "y_pred")
        }
        if bracket in ("mean[", "sum["):
            reduce = {"mean[": np.mean, "sum[": np.sum}[bracket]
            error = errors[meanings.get("y_pred", "")]
            value *= reduce(LOSSES[written](error, **numbers))
        else:
            value *= TERMS[written](targets[meanings["x"]], **numbers)
        if divided:
            value /= len(X)
        total += value + float(constant or 0.0)
    return total


def evaluated(model, x, y, **options):
    options = {"batch_size": len(X), "verbose": 0, **options}
    return model.evaluate(x, y, return_dict=True, **options)


def ours():
    first = layers.Dense(3, activation="sigmoid", name="enc")
    weights = {"kernel": "l1(0.02) + elastic_net(0.3, l1_ratio=0.2)", "bias": "l2(0.4)"}
    host = kp.layers.Penalized(first, weights=weights, outputs="l1(0.1)")
    code = kp.layers.ActivityPenalty("kl_sparsity(0.7, rate=0.2)", name="code")
    last = layers.Dense(3, activation="sigmoid", name="out")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, last(code(host(inputs))))
    model.compile("sgd", "half_sum_squared_error")
    hidden = dense(first, X)
    targets = {
        "enc/kernel": wide(first.kernel),
        "enc/bias": wide(first.bias),
        "enc": hidden,
        "code": hidden,
    }
    return model, X, Y, targets, {"": Y - dense(last, hidden)}


def slots():
    first = layers.Dense(
        5,
        activation="sigmoid",
        name="enc",
        kernel_regularizer=keras.regularizers.L1L2(0.03, 0.2),
        bias_initializer="ones",
        bias_regularizer=kp.penalties.L2(0.25) + kp.penalties.L1(0.125),
        activity_regularizer=keras.regularizers.L2(0.05),
    )
    last = layers.Dense(
        3, activation="sigmoid", activity_regularizer="keras_penalties>L1"
    )
    model = keras.Sequential([keras.Input((4,)), first, last])
    model.compile("sgd", keras.losses.MeanAbsoluteError(reduction="sum"))
    hidden = dense(first, X)
    found = dense(last, hidden)
    targets = {
        "enc/kernel": wide(first.kernel),
        "enc/bias": wide(first.bias),
        "enc": hidden,
        last.name: found,
    }
    return model, X, Y, targets, {"": Y - found}


def two_outputs(y=None):
    shared = layers.Dense(5, activation="sigmoid", name="enc")
    host = kp.layers.Penalized(shared, weights={"kernel": "l1(0.02)"})
    a = layers.Dense(3, activation="sigmoid", name="a", kernel_regularizer="l2")
    b = layers.Dense(3, activation="sigmoid", name="b")
    inputs = keras.Input((4,))
    hidden = host(inputs)
    model = keras.Model(inputs, {"a": a(hidden), "b": b(hidden)})
    losses = {"a": "mse", "b": keras.losses.Huber(delta=0.3)}
    model.compile("sgd", loss=losses, loss_weights={"a": 0.5, "b": 3.0})
    targets = {"enc/kernel": wide(shared.kernel), "a/kernel": wide(a.kernel)}
    h = dense(shared, X)
    errors = {"a": Y - dense(a, h), "b": Y - dense(b, h)}
    return model, X, {"a": Y, "b": Y}, targets, errors


def autoencoder():
    model = kp.models.SparseAutoencoder(hidden_units=5, weight_decay=0.1, sparsity=0.5)
    model.compile("sgd", "half_sum_squared_error")
    model.build((None, 4))
    hidden = dense(model.encoder.layer, X)
    targets = {
        "encoder/kernel": wide(model.encoder.layer.kernel),
        "decoder/kernel": wide(model.decoder.layer.kernel),
        "code": hidden,
    }
    return model, X, X, targets, {"": X - dense(model.decoder.layer, hidden)}


class Subclassed(keras.Model):
    """A model without a graph, with a host of each kind."""

    def __init__(self):
        super().__init__(name="mine")
        first = layers.Dense(5, activation="sigmoid", name="enc")
        self.first = kp.layers.Penalized(first, weights={"kernel": "l2(0.3)"})
        self.code = kp.layers.ActivityPenalty("l1(0.2)", name="code")
        self.last = layers.Dense(
            3, activation="sigmoid", name="out", kernel_regularizer="l2"
        )

    def call(self, inputs):
        return self.last(self.code(self.first(inputs)))


def subclassed():
    model = Subclassed()
    model.compile("sgd", "mse", loss_weights=0.5)
    model(X)
    hidden = dense(model.first.layer, X)
    targets = {
        "enc/kernel": wide(model.first.layer.kernel),
        "out/kernel": wide(model.last.kernel),
        "code": hidden,
    }
    return model, X, Y, targets, {"": Y - dense(model.last, hidden)}


def learned():
    """A learned strength adds its logarithm; a lazy one is plain in an evaluation."""
    last = layers.Dense(3, activation="sigmoid", name="out")
    lazy = kp.penalties.L1(kp.strengths.Lazy(0.3, every=4))
    host = kp.layers.Penalized(last, weights={"kernel": lazy})
    balanced = kp.layers.AddLoss("mean_absolute_error", kp.strengths.Learned(0.2))
    x, y_true = keras.Input((4,)), keras.Input((3,))
    model = keras.Model([x, y_true], balanced(host(x), y_true=y_true))
    model.compile("sgd")
    error = Y - dense(last, X)
    return model, [X, Y], None, {"out/kernel": wide(last.kernel)}, {"": error}


def penalized():
    """A model that was written without penalties."""
    first = layers.Dense(5, activation="sigmoid", name="enc")
    last = layers.Dense(3, activation="sigmoid", name="out", kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((4,)), first, last])
    rules = {".*kernel": "l1(0.02)", "enc": {"outputs": "kl_sparsity(0.4, rate=0.3)"}}
    model = kp.penalize(model, rules)
    model.compile("sgd", "mse")
    hidden = dense(first, X)
    kernels = {"enc/kernel": wide(first.kernel), "out/kernel": wide(last.kernel)}
    return model, X, Y, {**kernels, "enc": hidden}, {"": Y - dense(last, hidden)}


MODELS = [ours, slots, two_outputs, autoencoder, subclassed, learned, penalized]


class TestTheText:
    @pytest.mark.parametrize("make", MODELS, ids=lambda f: f.__name__)
    def test_by_hand_it_is_what_evaluate_says(self, make):
        model, x, y, targets, errors = make()
        text = str(kp.objective(model))
        logs = evaluated(model, x, y)
        assert by_hand(text, targets, errors) == pytest.approx(logs["loss"], rel=2e-5)
        # The batch has told Keras which loss is whose, and the text is the same.
        assert str(kp.objective(model)) == text

    def test_each_factor_counts(self):
        """A wrong number in the text would be seen."""
        model, _, _, targets, errors = ours()
        text = str(kp.objective(model))
        total = by_hand(text, targets, errors)
        for right, wrong in (
            ("0.02", "0.2"),
            ("0.1/n", "0.1"),
            ("rate = 0.2", "rate = 0.3"),
        ):
            assert by_hand(text.replace(right, wrong), targets, errors) != (
                pytest.approx(total, rel=1e-3)
            )

    def test_a_strength_that_is_changed(self):
        model, x, y, targets, errors = ours()
        kp.set_strength(model, "enc_bias_l2", 2.5)
        text = str(kp.objective(model))
        assert "2.5 · Σx²" in text
        loss = evaluated(model, x, y)["loss"]
        assert by_hand(text, targets, errors) == pytest.approx(loss, rel=2e-5)

    def test_what_a_mask_hides_is_left_out_of_x_and_n(self):
        words = np.array([[3, 1, 0], [2, 0, 0], [0, 0, 0], [1, 1, 2]])
        embed = layers.Embedding(4, 2, mask_zero=True, name="words")
        inputs = keras.Input((3,), dtype="int32")
        out = kp.layers.ActivityPenalty("l1(0.5)", name="code")(embed(inputs))
        model = keras.Model(inputs, out)
        model.compile("sgd", lambda y, z: 0.0 * z[..., 0])
        objective = kp.objective(model)
        assert "0.5/n · Σ|x|" in str(objective)
        assert "a mask hides is left out of x and of n" in str(objective)
        real = wide(embed.embeddings)[words[words > 0]]
        loss = evaluated(model, words, np.zeros((4, 3, 2)))["loss"]
        assert loss == pytest.approx(0.5 * np.abs(real).sum() / 3, rel=1e-5)

    def test_the_optimizer_s_share_is_apart(self):
        first, last = layers.Dense(2, name="a"), layers.Dense(1, name="b")
        model = keras.Sequential([keras.Input((3,)), first, last])
        inner = keras.optimizers.AdamW(weight_decay=0.25)
        inner.exclude_from_weight_decay(var_names=["bias"])
        penalties = {"a/kernel": "l1(0.5)", "b/kernel": "box(low=-1.0, high=2.0)"}
        model.compile(kp.optimizers.Proximal(inner, penalties), "mse")
        text = str(kp.objective(model))
        loss, _, optimizer = text.partition("by the optimizer, not in `loss`:\n")
        assert "a/kernel" not in loss
        assert re.search(r"\+  0\.5 · Σ\|x\| +x = \S*a/kernel", optimizer)
        assert re.search(r"\+  subject to low ≤ x ≤ high +x = \S*b/kernel", optimizer)
        decay = next(x for x in optimizer.split("\n") if "weight_decay" in x)
        assert "0.25 · ½·Σx²" in decay
        assert re.findall(r"\S+/kernel", decay) == [first.kernel.path, last.kernel.path]
        assert "bias" not in decay

    def test_a_frozen_weight_is_not_counted(self):
        model, x, y, targets, errors = ours()
        model.get_layer("penalized_enc").trainable = False
        model.compile("sgd", "half_sum_squared_error")
        text = str(kp.objective(model))
        assert "since the weight is frozen: enc_kernel_l1, enc_kernel_elastic" in text
        with pytest.warns(UserWarning, match="does not act"):
            loss = evaluated(model, x, y)["loss"]
        assert by_hand(text, targets, errors) == pytest.approx(loss, rel=2e-5)

    def test_a_term_on_a_layer_that_stands_twice(self):
        twice = layers.Dense(4, name="twice", activity_regularizer="l1")
        inputs = keras.Input((4,))
        model = keras.Model(inputs, twice(twice(inputs)))
        assert "count at each: twice" in str(kp.objective(model))
        once = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
        assert "count at each" not in str(kp.objective(once))


class Foreign(layers.Layer):
    def call(self, inputs):
        return inputs


class Sneaky(keras.Model):
    def call(self, inputs):
        return inputs

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


class TestWhatCannotBeKnown:
    def notes(self, model):
        return "\n".join(kp.objective(model).notes)

    def model(self, *stack, loss="mse", **options):
        model = keras.Sequential([keras.Input((3,)), *stack])
        model.compile("sgd", loss, **options)
        return model

    def test_nothing_is_said_of_what_is_known(self):
        model = self.model(layers.Dense(3, kernel_regularizer="l1"), layers.ReLU())
        assert "not known" not in self.notes(model)
        assert "not known" not in self.notes(autoencoder()[0])

    def test_layers_with_code_of_their_own(self):
        own = layers.Lambda(lambda x: x, name="mine")
        notes = self.notes(self.model(Foreign(name="far"), own, layers.Dense(3)))
        assert "code of their own: Foreign 'far', Lambda 'mine'." in notes
        assert "Subclassed 'mine'" in self.notes(subclassed()[0])

    def test_a_loss_and_a_regularizer_of_one_s_own(self):
        class Odd(keras.regularizers.Regularizer):
            def __call__(self, x):
                return ops.sum(x)

        def strange(y_true, y_pred):
            return ops.mean(y_true - y_pred, axis=-1)

        layer = layers.Dense(3, kernel_regularizer=Odd(), name="d")
        model = self.model(layer, loss=strange)
        assert "the formulas of strange, d_kernel_odd." in self.notes(model)
        assert "Odd(x)" in str(kp.objective(model))

    def test_methods_of_one_s_own(self):
        model = Sneaky()
        model.compile("sgd", "mse")
        model(X)
        assert "what Sneaky.compute_loss makes of the loss" in self.notes(model)

    def test_a_model_that_is_not_compiled(self):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
        assert "the model is not compiled" in self.notes(model)

    def test_losses_that_wait_for_a_batch(self):
        class Two(keras.Model):
            def call(self, inputs):
                return [inputs, 2.0 * inputs]

        model = Two()
        model.compile("sgd", ["mse", "mae"])
        model(X)
        assert "which loss belongs to which output" in self.notes(model)
        model.evaluate(X, [X, X], verbose=0)
        assert "which loss" not in self.notes(model)
        text = str(kp.objective(model))
        assert re.search(r"square\S+ - y_pred\), axis=-1\)\] +y_pred = output 0", text)
        assert re.search(r"abs\S+ - y_pred\), axis=-1\)\] +y_pred = output 1", text)


class TestSummary:
    def test_values_shares_and_zeros_by_hand(self):
        """y = x·W: each value and each gradient is written down."""
        w = np.array([[1.0, 0.0, -2.0], [0.0, 0.5, 0.0]])
        layer = layers.Dense(
            3,
            use_bias=False,
            name="d",
            kernel_initializer=keras.initializers.Constant(w),
            kernel_regularizer=kp.penalties.L2(0.25),
            activity_regularizer=keras.regularizers.L2(0.5),
        )
        host = kp.layers.Penalized(layer, weights={"kernel": "l1(0.5)"})
        model = keras.Sequential([keras.Input((2,)), host])
        model.compile("sgd", "half_sum_squared_error")
        x, y = X[:, :2], Y
        wx, out = wide(x), wide(x) @ w
        slot_n = 8 if compat.slot_divides() else 1  # before Keras 3.14
        values = {
            "data loss": 0.5 * np.square(out - y).sum() / 8,
            "d_kernel_l1": 0.5 * np.abs(w).sum(),
            "d_kernel_l2": 0.25 * np.square(w).sum(),
            "d_l2": 0.5 * np.square(out).sum() / slot_n,
        }
        gradients = {
            "data loss": wx.T @ (out - y) / 8,
            "d_kernel_l1": 0.5 * np.sign(w),
            "d_kernel_l2": 0.5 * w,
            "d_l2": wx.T @ out / slot_n,
        }
        norms = {n: np.linalg.norm(g) for n, g in gradients.items()}
        found = kp.summary(model, (x, y))
        rows = {row.name: row for row in found.rows}
        assert {n: r.value for n, r in rows.items()} == pytest.approx(values, rel=1e-5)
        assert found.loss == pytest.approx(evaluated(model, x, y)["loss"], rel=1e-5)
        loss, norm = sum(values.values()), sum(norms.values())
        for name, row in rows.items():
            assert row.loss_share == pytest.approx(values[name] / loss, rel=1e-4)
            assert row.gradient_share == pytest.approx(norms[name] / norm, rel=1e-4)
        kernel = rows["d_kernel_l1"]
        assert (kernel.zeros, kernel.size, kernel.strength) == (3, 6, 0.5)
        assert rows["d_l2"].zeros is None

    @pytest.mark.slow_on_tensorflow
    @pytest.mark.parametrize("make", MODELS, ids=lambda f: f.__name__)
    def test_shares_are_of_the_whole_and_the_model_stays(self, make):
        model, x, y, _, _ = make()
        before = [wide(v) for v in model.variables]
        found = kp.summary(model, (x, y))
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(wide(variable), value)
        for shares in ("loss_share", "gradient_share"):
            assert math.fsum(getattr(r, shares) or 0.0 for r in found.rows) == (
                pytest.approx(1.0, rel=1e-5)
            )
        logs = evaluated(model, x, y)
        assert found.loss == pytest.approx(logs["loss"], rel=1e-5)
        for row in found.rows:
            if row.name in logs:
                assert row.value == pytest.approx(logs[row.name], rel=1e-4, abs=1e-6)

    def test_without_a_batch_only_weights_have_values(self):
        model, *_ = ours()
        found = {row.name: row.value for row in kp.summary(model).rows}
        first = model.get_layer("penalized_enc").layer
        l1 = 0.02 * np.abs(wide(first.kernel)).sum()
        assert found["enc_kernel_l1"] == pytest.approx(l1, rel=1e-5)
        assert found["enc_output_l1"] is found["code_kl_sparsity"] is None
        assert "of the loss" not in str(kp.summary(model))

    def test_frozen_and_proximal_terms_have_a_value_and_no_share(self):
        first = layers.Dense(2, name="a", kernel_initializer="ones")
        cold = layers.Dense(2, name="b", kernel_initializer="ones")
        cold.trainable = False
        host = kp.layers.Penalized(cold, weights={"kernel": "l2(3.0)"})
        model = keras.Sequential([keras.Input((4,)), first, host])
        inner = keras.optimizers.SGD(0.1)
        model.compile(kp.optimizers.Proximal(inner, {"a/kernel": "l1(0.5)"}), "mse")
        with pytest.warns(UserWarning, match="does not act"):
            found = kp.summary(model, (X, Y[:, :2]))
        rest, frozen, proximal = found.rows
        assert (frozen.value, proximal.value) == (12.0, 4.0)
        assert frozen.loss_share is frozen.gradient_share is None
        assert proximal.loss_share is proximal.gradient_share is None
        assert rest.loss_share == rest.gradient_share == 1.0
        assert "since the weight is frozen: b_kernel_l2." in str(found)
        assert f"not in `loss`, by the optimizer: {proximal.name}." in str(found)

    def test_the_gradient_s_optimizer_and_the_start_of_a_weight(self):
        dense = layers.Dense(2, name="a", kernel_initializer="ones")
        start = kp.penalties.ToReference(kp.strengths.Lazy(4.0, every=2), "start")
        host = kp.layers.Penalized(dense, weights={"kernel": start})
        model = keras.Sequential([keras.Input((4,)), host])
        lazy = kp.penalties.L2(kp.strengths.Lazy(0.5, every=4))
        inner = keras.optimizers.SGD(0.0)
        model.compile(kp.optimizers.Penalizing(inner, {"a/bias": lazy}), "mse")
        model.train_on_batch(X, Y[:, :2])  # the start is kept
        dense.kernel.assign(np.full((4, 2), 3.0))
        dense.bias.assign(np.full((2,), 3.0))
        _, on_start, bias = kp.summary(model, (X, Y[:, :2])).rows
        assert on_start.value == pytest.approx(4.0 * 0.5 * 8 * 2.0**2)
        assert (bias.strength, bias.value, bias.loss_share) == (0.5, 9.0, None)
        assert "0.5 · Σx²" in str(kp.objective(model)).partition("optimizer")[2]
        without_batch = kp.summary(model).rows[0]
        assert without_batch.value == pytest.approx(on_start.value)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        keras.config.set_dtype_policy(policy)
        model, x, y, _, _ = ours()
        found = {row.name: row for row in kp.summary(model, (x, y)).rows}
        first = model.get_layer("penalized_enc").layer
        l1 = 0.02 * np.abs(wide(first.kernel)).sum()
        assert found["enc_kernel_l1"].value == pytest.approx(l1, rel=1e-5)
        shares = [row.gradient_share for row in found.values()]
        assert sum(shares) == pytest.approx(1.0)
        assert sorted(shares)[0] == found["enc_bias_l2"].gradient_share == 0.0
        assert sorted(shares)[1] > 0.0

    def test_sample_weights_are_those_of_evaluate(self):
        model, x, y, _, _ = ours()
        weight = np.arange(8.0)
        found = kp.summary(model, (x, y, weight))
        loss = evaluated(model, x, y, sample_weight=weight)["loss"]
        assert found.loss == pytest.approx(loss, rel=1e-5)

    def test_the_activity_of_a_sum_is_not_told_apart(self):
        both = kp.penalties.L1(0.1) + kp.penalties.L2(0.2)
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(3, activity_regularizer=both)]
        )
        model.compile("sgd", "mse")
        rest, *terms = kp.summary(model, (X, Y)).rows
        assert [row.value for row in terms] == [None, None]
        assert rest.value == pytest.approx(evaluated(model, X, Y)["loss"], rel=1e-5)

    def test_a_batch_needs_a_compiled_model(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
        with pytest.raises(ValueError, match=r"`model`. Expected a compiled model"):
            kp.summary(model, (X, Y))
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="Invalid value for argument `batch`"):
            kp.summary(model, (X, Y, None, None))


class Checked(html.parser.HTMLParser):
    """Reads HTML, and what is open at its end."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert attrs == []  # nothing that could fetch or run
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


@pytest.mark.slow_on_tensorflow
@pytest.mark.one_backend
class TestForms:
    def test_html_is_whole_and_escaped(self):
        name = "<script>alert(1)<b>&"
        weights = {"kernel": "l1(0.5)"}
        host = kp.layers.Penalized(layers.Dense(3, name="d"), weights=weights)
        last = layers.Dense(3, kernel_regularizer="l2")
        model = keras.Sequential([keras.Input((4,)), host, last])
        model.compile("sgd", "mse")
        last.name = name
        views = [
            kp.terms(model),
            kp.summary(model, (X, Y)),
            kp.objective(model),
            kp.sparsity(model),
        ]
        for view in views:
            read = Checked(view._repr_html_())
            assert read.open == []
            assert read.tags <= {"table", "tr", "td", "th", "p"}
        assert f"{name}/kernel" in Checked(kp.terms(model)._repr_html_()).cells

    def test_latex_is_math_that_matplotlib_reads(self):
        mathtext = pytest.importorskip("matplotlib.mathtext").MathTextParser("agg")
        of_keras = (getattr(keras.losses, n) for n in dir(keras.losses))
        known = [e.obj for e in registered(package="keras_penalties")]
        formulas = {formula(o) for o in (*known, *filter(callable, of_keras))} - {""}
        assert len(formulas) > 60
        for written in formulas:
            mathtext.parse(f"${latex(written)}$")
        for make in MODELS:
            text = kp.objective(make()[0]).latex()
            assert text.isascii()
            begin, *lines, end = text.replace("{}&", "").split("\n")
            assert (begin, end) == (r"\begin{aligned}", r"\end{aligned}")
            for line in lines:
                mathtext.parse(f"${line.removesuffix(chr(92) * 2)}$")

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("Σ l1_ratio·|x|", r"\sum \mathrm{l1\_ratio}\cdot |x|"),
            ("y_k^(2−t1)", r"y_{k}^{2-\mathrm{t1}}"),
            ("√(Cⱼⱼ + 10⁻⁴)", r"\sqrt{C_{jj} + 10^{-4}}"),
            ("ŷ ≤ γ₊", r"\hat{y} \leq \gamma _{+}"),
            ("log_t1 λ", r"\log _{\mathrm{t1}} \lambda"),
            ("∂²f / ∂x", r"\frac{\partial ^{2}f}{\partial x}"),
            ("Σ ∫₀^|x| x̂ du", r"\sum \int _{0}^{|x|} \hat{x} \mathrm{du}"),
            ("p**2 * mean rate", r"p^{2} * \mathrm{mean}\ \mathrm{rate}"),
            ("x.T @ x", r"\mathrm{x.T\ @\ x}"),  # code stays as it is
        ],
    )
    def test_latex_of_what_formulas_hold(self, written, expected):
        assert latex(written) == expected

    def test_latex_of_odd_names(self):
        assert word("a_b c/ü$%{") == r"\mathrm{a\_b\ c/ü\$\%\{}"
