"""`AddLoss`: losses over named tensors, by hand, with masks, weights and reload."""

import os
import sys

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops
from keras.optimizers.schedules import PolynomialDecay

import keras_penalties as kp

RNG = np.random.default_rng(0)

MODULE = '''
import keras
import keras_penalties as kp
from keras import ops


@kp.register(package="my_project")
def five_tensors(y_pred, y_true, x, scale, time):
    """One value per sample, from a prediction and four tensors beside it."""
    error = ops.sum(ops.square(y_pred - y_true), axis=-1)
    return error * scale * ops.cast(time, scale.dtype) + ops.mean(x, axis=-1)


@kp.register(package="my_project")
class Scaled:
    """A callable with an argument of its own."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, code, x):
        return self.factor * ops.sum(code, axis=-1) * ops.sum(x, axis=-1)

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
'''

RELOAD = """
import json, keras, numpy as np, keras_penalties, my_project
model = keras.saving.load_model("model.keras")
data = dict(np.load("data.npz"))
logs = [model.evaluate(data, verbose=0, return_dict=True)]
logs += [model.train_on_batch(data, return_dict=True) for _ in range(2)]
model.save("again.keras")
keras.saving.load_model("again.keras")
print("OUTCOME", json.dumps(logs, default=float))
"""


@pytest.fixture(scope="module")
def my_project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my_project")
    (folder / "my_project.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    import my_project

    yield my_project
    sys.path.remove(str(folder))


def draws(n=20):
    return {
        "x": RNG.normal(size=(n, 3)).astype("float32"),
        "y": RNG.normal(size=(n, 2)).astype("float32"),
        "scale": RNG.random(n).astype("float32"),
        "time": RNG.integers(0, 5, n).astype("int32"),
        "weight": RNG.random(n).astype("float32"),
    }


def five_tensor_models(my_project, strength=2.0):
    x, y = keras.Input((3,), name="x"), keras.Input((2,), name="y")
    scale, weight = keras.Input((), name="scale"), keras.Input((), name="weight")
    time = keras.Input((), name="time", dtype="int32")
    prediction = layers.Dense(2, name="prediction")(x)
    term = kp.layers.AddLoss(my_project.five_tensors, strength)
    passed = term(
        prediction, y_true=y, x=x, scale=scale, time=time, sample_weight=weight
    )
    inputs = {"x": x, "y": y, "scale": scale, "time": time, "weight": weight}
    return keras.Model(x, prediction), keras.Model(inputs, passed)


def five_by_hand(prediction, d):
    error = np.sum((prediction - d["y"]) ** 2, axis=-1)
    values = error * d["scale"] * d["time"] + d["x"].mean(-1)
    return np.mean(values * d["weight"])


def evaluated(model, data, **kwargs):
    return model.evaluate(data, verbose=0, return_dict=True, **kwargs)


class TestFiveTensors:
    def test_it_trains_and_is_logged_by_plain_fit(self, my_project):
        inference, training = five_tensor_models(my_project)
        training.compile(keras.optimizers.SGD(0.05))
        data = draws()
        expected = 2.0 * five_by_hand(inference.predict(data["x"], verbose=0), data)
        logs = evaluated(training, data, batch_size=20)
        assert set(logs) == {"loss", "five_tensors"}
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)
        assert logs["five_tensors"] == pytest.approx(expected, rel=1e-5)
        history = training.fit(
            data, validation_data=(data,), batch_size=20, epochs=5, verbose=0
        ).history
        assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
        assert history["val_five_tensors"][-1] < expected
        after = 2.0 * five_by_hand(inference.predict(data["x"], verbose=0), data)
        assert history["val_five_tensors"][-1] == pytest.approx(after, rel=1e-5)

    def test_under_jit(self, my_project):
        inference, training = five_tensor_models(my_project)
        compiled = BACKEND != "torch"  # there it would need a C++ compiler
        training.compile(keras.optimizers.SGD(0.0), jit_compile=compiled)
        data = draws()
        expected = 2.0 * five_by_hand(inference.predict(data["x"], verbose=0), data)
        logs = training.train_on_batch(data, return_dict=True)
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)

    def test_the_inference_model_is_clean(self, my_project):
        inference, _ = five_tensor_models(my_project)
        assert [layer.name for layer in inference.layers] == ["x", "prediction"]
        assert kp.terms(inference) == ()

    def test_the_view_of_terms(self, my_project):
        _, training = five_tensor_models(my_project)
        (term,) = kp.terms(training)
        assert (term.name, term.strength) == ("five_tensors", 2.0)
        assert term.penalty is my_project.five_tensors
        assert "five_tensors  2         five_tensors" in str(kp.terms(training))

    def test_a_strength_on_a_schedule(self, my_project):
        inference, training = five_tensor_models(
            my_project, PolynomialDecay(0.0, 2, 1.0)
        )
        training.compile(keras.optimizers.SGD(0.0))
        data = draws()
        value = five_by_hand(inference.predict(data["x"], verbose=0), data)
        for step in range(4):
            logs = evaluated(training, data, batch_size=20)
            expected = value * min(step / 2, 1.0)
            assert logs["five_tensors"] == pytest.approx(expected, rel=1e-5)
            training.train_on_batch(data)

    def test_beside_a_compiled_loss(self, my_project):
        inference, training = five_tensor_models(my_project)
        training.compile("sgd", loss="mse")
        data = draws()
        prediction = inference.predict(data["x"], verbose=0)
        logs = training.evaluate(
            data, data["y"], batch_size=20, verbose=0, return_dict=True
        )
        expected = 2.0 * five_by_hand(prediction, data)
        assert logs["five_tensors"] == pytest.approx(expected, rel=1e-5)
        data_loss = np.mean((prediction - data["y"]) ** 2)
        assert logs["loss"] == pytest.approx(expected + data_loss, rel=1e-5)

    def test_it_reloads_in_a_fresh_process(self, my_project, tmp_path, fresh_process):
        import json

        _, training = five_tensor_models(my_project)
        training.compile("adam")
        data = draws()
        training.fit(data, epochs=2, verbose=0)
        training.save(tmp_path / "model.keras")
        np.savez(tmp_path / "data.npz", **data)
        expected = [evaluated(training, data)]
        expected += [training.train_on_batch(data, return_dict=True) for _ in range(2)]
        printed = fresh_process(RELOAD, PYTHONPATH=os.pathsep.join(sys.path))
        (line,) = [x for x in printed.splitlines() if x.startswith("OUTCOME")]
        logs = json.loads(line.removeprefix("OUTCOME"))
        assert logs == json.loads(json.dumps(expected, default=float))

    def test_with_a_mask_and_weights_it_reloads(self, my_project, tmp_path):
        """Sequences, of which a mask leaves out the last step, weighed by sample."""
        x, y = keras.Input((4, 3)), keras.Input((4, 2))
        scale, time, weight = keras.Input((1,)), keras.Input((4,)), keras.Input(())
        prediction = layers.Dense(2)(layers.Masking()(x))
        passed = kp.layers.AddLoss(my_project.five_tensors)(
            prediction, y_true=y, x=x, scale=scale, time=time, sample_weight=weight
        )
        model = keras.Model([x, y, scale, time, weight], passed)
        model.compile(keras.optimizers.SGD(0.0))
        shapes = (6, 4, 3), (6, 4, 2), (6, 1), (6, 4), (6,)
        data = [RNG.random(shape).astype("float32") for shape in shapes]
        data[0][:, 3] = 0.0
        error = np.sum((model.predict(data, verbose=0) - data[1]) ** 2, axis=-1)
        values = error * data[2] * data[3] + data[0].mean(-1)
        by_hand = np.mean((values * data[4][:, None])[:, :3])
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for each in (model, again):
            logs = evaluated(each, data, batch_size=6)
            assert logs["five_tensors"] == pytest.approx(by_hand, rel=1e-5)

    def test_targets_are_not_rounded_in_mixed_precision(self, my_project):
        keras.config.set_dtype_policy("mixed_float16")
        seen = {}

        def look(y_pred, exact, number):
            seen.update(pred=y_pred.dtype, exact=exact, number=number)
            return ops.sum(y_pred, axis=-1)

        term = kp.layers.AddLoss(look)
        half = ops.ones((2, 3), "float16")
        exact = np.array([16777217, 3], "int32")
        passed = term(half, exact=exact, number=np.full(2, 70001.0, "float32"))
        assert keras.backend.standardize_dtype(passed.dtype) == "float16"
        assert keras.backend.standardize_dtype(seen["pred"]) == "float32"
        np.testing.assert_array_equal(ops.convert_to_numpy(seen["exact"]), exact)
        np.testing.assert_array_equal(ops.convert_to_numpy(seen["number"]), 70001.0)


def added(layer):
    (loss,) = layer.losses
    return float(ops.convert_to_numpy(loss))


def row_sums(x):
    return ops.sum(x, axis=-1)


class TestReduction:
    def masked(self):
        x = RNG.normal(size=(2, 4, 3)).astype("float32")
        x[0, 2:] = x[1, :1] = 0.0
        valid = np.any(x != 0, axis=-1)
        return x, valid, layers.Masking()(ops.convert_to_tensor(x))

    def test_the_mean_is_over_what_a_mask_leaves(self):
        x, valid, masked = self.masked()
        layer = kp.layers.AddLoss(lambda x: ops.sum(x, axis=-1) + 1.0, name="rows")
        layer(masked)
        by_hand = x.sum(-1)[valid].mean() + 1.0
        assert added(layer) == pytest.approx(by_hand, rel=1e-5)

    def test_weights_and_masks_as_keras_has_them(self):
        _, _, masked = self.masked()
        weight = np.array([0.5, 2.0], "float32")
        layer = kp.layers.AddLoss(row_sums)
        layer(masked, sample_weight=weight)

        class Same(keras.losses.Loss):
            def call(self, y_true, y_pred):
                return ops.sum(y_pred, axis=-1)

        keras_weight = np.broadcast_to(weight[:, None], (2, 4))
        expected = float(Same()(np.zeros((2, 4, 3)), masked, keras_weight))
        assert added(layer) == pytest.approx(expected, rel=1e-5)

    def test_what_is_computed_where_there_is_nothing_is_left_out(self):
        x, valid, masked = self.masked()
        layer = kp.layers.AddLoss(lambda x: ops.log(ops.sum(ops.abs(x), axis=-1)))
        layer(masked)
        by_hand = np.log(np.abs(x).sum(-1)[valid]).mean()
        assert added(layer) == pytest.approx(by_hand, rel=1e-5)

    def test_a_mask_that_leaves_nothing_gives_zero(self):
        masked = layers.Masking()(ops.zeros((2, 4, 3)))
        layer = kp.layers.AddLoss(row_sums)
        layer(masked)
        assert added(layer) == 0.0

    @pytest.mark.parametrize("shape", [(5,), (5, 1)])
    def test_a_weight_of_a_sample_weighs_all_its_values(self, shape):
        x = RNG.normal(size=(5, 4, 3)).astype("float32")
        weight = RNG.random(5).astype("float32")
        layer = kp.layers.AddLoss(row_sums)
        layer(x, sample_weight=weight.reshape(shape))
        by_hand = (x.sum(-1) * weight[:, None]).mean()
        assert added(layer) == pytest.approx(by_hand, rel=1e-5)

    def test_a_keras_loss_reduces_and_weighs_by_itself(self):
        y, p = RNG.random((2, 6, 3)).astype("float32")
        weight = RNG.random(6).astype("float32")
        for reduction in ("sum", "sum_over_batch_size", "mean_with_sample_weight"):
            loss = keras.losses.MeanAbsoluteError(reduction=reduction)
            layer = kp.layers.AddLoss(loss, 0.5)
            layer(p, y_true=y, sample_weight=weight)
            expected = 0.5 * float(loss(y, p, weight))
            assert added(layer) == pytest.approx(expected, rel=1e-6)

    def test_a_scalar_counts_as_it_is(self):
        layer = kp.layers.AddLoss(lambda x: ops.sum(x), 0.5, name="scalar")
        layer(np.ones((4, 3), "float32"))
        assert added(layer) == 6.0


class TestRefusals:
    @pytest.mark.parametrize(
        "given", [{}, {"y_true": 1, "z": 1}, {"y_true": 1, "y_pred": 1}, {"y_tru": 1}]
    )
    def test_names_that_the_loss_does_not_have(self, given):
        tensors = {name: keras.Input((2,)) for name in given}
        for loss in ("mse", "half_sum_squared_error"):
            with pytest.raises(ValueError, match=r"the tensors \['y_true'\] by name"):
                kp.layers.AddLoss(loss)(keras.Input((2,)), **tensors)

    def test_a_weight_or_a_mask_that_a_scalar_would_drop(self):
        layer = kp.layers.AddLoss(lambda x: ops.sum(x), name="scalar")
        with pytest.raises(ValueError, match="argument `sample_weight`"):
            layer(ops.ones((4, 3)), sample_weight=ops.ones(4))
        with pytest.raises(ValueError, match="argument `mask`"):
            layer(layers.Masking()(ops.ones((4, 5, 3))))

    def test_values_that_are_not_of_the_samples(self):
        layer = kp.layers.AddLoss(lambda x: ops.sum(x, axis=0), name="columns")
        with pytest.raises(ValueError, match="a value for each sample"):
            layer(ops.ones((4, 3)))
        layer = kp.layers.AddLoss(row_sums)
        with pytest.raises(ValueError, match="argument `sample_weight`"):
            layer(ops.ones((4, 3)), sample_weight=ops.ones((4, 3)))

    def test_a_loss_that_does_not_reduce(self):
        with pytest.raises(ValueError, match="a loss with a reduction"):
            kp.layers.AddLoss(keras.losses.MeanSquaredError(reduction=None))

    @pytest.mark.parametrize("loss", ["no_such_loss", lambda: 0.0])
    def test_what_is_no_loss(self, loss):
        with pytest.raises(ValueError, match="loss"):
            kp.layers.AddLoss(loss)


class TestWorkedCases:
    def test_two_outputs_jointly(self):
        """A Gaussian's mean and log-variance come from two layers."""

        def gaussian(outputs, y_true):
            error = ops.square(y_true - outputs["mean"])
            log_variance = outputs["log_variance"]
            return 0.5 * ops.mean(log_variance + error * ops.exp(-log_variance), -1)

        x, y = keras.Input((3,)), keras.Input((2,))
        outputs = {n: layers.Dense(2, name=n)(x) for n in ("mean", "log_variance")}
        model = keras.Model([x, y], kp.layers.AddLoss(gaussian)(outputs, y_true=y))
        model.compile(keras.optimizers.Adam(0.1))
        data = RNG.normal(size=(30, 3)).astype("float32")
        target = data[:, :2] * 3.0 + 1.0
        out = model.predict([data, target], verbose=0)
        assert set(out) == {"mean", "log_variance"}
        s = out["log_variance"]
        by_hand = 0.5 * np.mean(s + (target - out["mean"]) ** 2 * np.exp(-s))
        logs = evaluated(model, [data, target], batch_size=30)
        assert logs["gaussian"] == pytest.approx(by_hand, rel=1e-5)
        many = [np.tile(d, (20, 1)) for d in (data, target)]
        history = model.fit(many, epochs=3, batch_size=30, verbose=0).history
        marginal = 0.5 * np.mean(np.log(target.var(0)) + 1.0)  # the best constants
        assert history["gaussian"][-1] < marginal - 0.5

    def test_a_hidden_layer(self):
        def slow_code(y_pred, y_true, code):
            return ops.mean(ops.square(y_pred - y_true), -1) + ops.sum(code**2, -1)

        x, y = keras.Input((3,)), keras.Input((1,))
        code = layers.Dense(4, name="code")(x)
        passed = kp.layers.AddLoss(slow_code)(
            layers.Dense(1)(code), y_true=y, code=code
        )
        model = keras.Model([x, y], passed)
        model.compile(keras.optimizers.SGD(0.1))
        data = [RNG.normal(size=(10, n)).astype("float32") for n in (3, 1)]
        norm = np.linalg.norm(model.get_layer("code").get_weights()[0])
        model.fit(data, epochs=20, verbose=0)
        assert np.linalg.norm(model.get_layer("code").get_weights()[0]) < 0.5 * norm

    @pytest.mark.slow_on_tensorflow
    def test_distillation_from_a_teacher(self):
        x, label = keras.Input((3,)), keras.Input((1,))
        teacher = keras.Sequential([keras.Input((3,)), layers.Dense(4)], name="teacher")
        teacher.trainable = False
        before = teacher.get_weights()
        student = layers.Dense(4, name="student")(x)
        target = layers.Concatenate()([label, teacher(x)])
        loss = kp.losses.Distillation(temperature=3.0, alpha=1.0)
        model = keras.Model(
            [x, label], kp.layers.AddLoss(loss, name="teach")(student, y_true=target)
        )
        model.compile(keras.optimizers.Adam(0.05))
        data = RNG.normal(size=(64, 3)).astype("float32")
        labels = RNG.integers(0, 4, (64, 1)).astype("float32")
        history = model.fit(
            [data, labels], epochs=100, batch_size=64, verbose=0
        ).history
        assert history["teach"][-1] < 1e-3 < history["teach"][0]
        for old, new in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_cox_with_censoring(self):
        x, survival = keras.Input((3,)), keras.Input((2,), dtype="int32")
        loss = kp.losses.CoxPartialLikelihood(reduction="sum")
        risk = layers.Dense(1, use_bias=False)(x)
        passed = kp.layers.AddLoss(loss, name="cox")(risk, y_true=survival)
        model = keras.Model([x, survival], passed)
        model.compile("sgd")
        data = RNG.normal(size=(12, 3)).astype("float32")
        survived = np.stack([RNG.integers(1, 5, 12), RNG.integers(0, 2, 12)], axis=1)
        survived = survived.astype("int32")
        expected = float(loss(survived, model.predict([data, survived], verbose=0)))
        logs = evaluated(model, [data, survived], batch_size=12)
        assert logs["cox"] == pytest.approx(expected, rel=1e-5)

    def test_triplets_from_one_batch(self):
        """Anchor, positive and negative are three inputs of one shared encoder."""

        def triplet(anchor, positive, negative):
            near = ops.sum(ops.square(anchor - positive), axis=-1)
            far = ops.sum(ops.square(anchor - negative), axis=-1)
            return ops.relu(near - far + 1.0)

        encoder = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
        a, p, n = (keras.Input((4,)) for _ in range(3))
        passed = kp.layers.AddLoss(triplet)(
            encoder(a), positive=encoder(p), negative=encoder(n)
        )
        model = keras.Model([a, p, n], passed)
        model.compile(keras.optimizers.Adam(0.05))
        side = RNG.integers(0, 2, 40)[:, None] * 2.0 - 1.0
        data = [
            (np.hstack([s, RNG.normal(size=(40, 3))])).astype("float32")
            for s in (side, side, -side)
        ]
        many = [np.tile(d, (20, 1)) for d in data]
        history = model.fit(many, epochs=2, batch_size=40, verbose=0).history
        assert history["triplet"][-1] < 0.3 * history["triplet"][0]

    def test_a_callable_object_keeps_its_arguments(self, my_project, tmp_path):
        x = keras.Input((3,))
        code = layers.Dense(2)(x)
        term = kp.layers.AddLoss(my_project.Scaled(3.0), name="scaled")
        model = keras.Model(x, term(code, x=x))
        model.compile("sgd")
        data = RNG.normal(size=(6, 3)).astype("float32")
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert again.get_layer("scaled").loss.factor == 3.0
        by_hand = np.mean(3.0 * model.predict(data, verbose=0).sum(-1) * data.sum(-1))
        for each in (model, again):
            assert evaluated(each, data)["scaled"] == pytest.approx(by_hand, rel=1e-5)
