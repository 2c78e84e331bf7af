"""What can be watched: step by step, in a file, as gradients and in TensorBoard."""

import csv

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp
from keras_penalties.callbacks import TermLogger, gradient_shares

X = np.random.default_rng(0).random((10, 3)).astype("float32")


def wide(x):
    return ops.convert_to_numpy(x).astype("float64")


def model_of_terms(**options):
    """Weights that stay, so that every value is known."""
    ramp = kp.strengths.LinearRamp(0.0, 100.0, steps=100)
    ones = {"kernel_initializer": "ones", "bias_initializer": "ones"}
    dense = layers.Dense(3, name="d", **ones)
    weights = {"kernel": kp.penalties.L1(ramp) + kp.penalties.L2(0.5)}
    host = kp.layers.Penalized(dense, weights=weights)
    act = kp.layers.ActivityPenalty("l1(2.0)", name="a")
    model = keras.Sequential([keras.Input((3,)), act, host])
    sparse = kp.optimizers.Proximal(keras.optimizers.SGD(0.0), {"d/bias": "l1(0.25)"})
    model.compile(sparse, "mse", **options)
    return model


class TestRows:
    def test_each_step_has_its_own_values(self, tmp_path):
        model, path = model_of_terms(), tmp_path / "terms.csv"
        logger = TermLogger(path)
        options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
        model.fit(X, X, callbacks=[logger], **options)
        batches = [X[:4], X[4:8], X[8:]]
        for step, row in enumerate(logger.rows):
            l1 = 2.0 * np.sum(batches[step % 3]) / len(batches[step % 3])
            assert row.pop("epoch") == step // 3
            assert row.pop("batch") == step % 3
            bias = model.layers[-1].layer.bias.path.removeprefix(f"{model.name}/")
            bias = bias.replace("/", "_")
            assert row == pytest.approx(
                {
                    "a_l1": l1,
                    "a_l1_strength": 2.0,
                    "d_kernel_l1": 9.0 * step,
                    "d_kernel_l1_strength": step + 1,
                    "d_kernel_l2": 4.5,
                    "d_kernel_l2_strength": 0.5,
                    f"{bias}_l1": 0.75,
                    f"{bias}_l1_strength": 0.25,
                },
                rel=1e-5,
                abs=1e-5,
            )
        with path.open() as file:
            read = list(csv.DictReader(file))
        assert len(read) == len(logger.rows) == 6
        assert float(read[4]["d_kernel_l1"]) == pytest.approx(36.0)
        assert [p.name for p in tmp_path.iterdir()] == ["terms.csv"]

    @pytest.mark.slow_on_tensorflow
    def test_a_resumed_training_goes_on_with_the_files_rows(self, tmp_path):
        options = {"batch_size": 4, "shuffle": False, "verbose": 0}

        def train(model, epochs, start=0, **more):
            logger = TermLogger(tmp_path / "terms.csv", **more)
            model.fit(
                X, X, epochs=epochs, initial_epoch=start, callbacks=[logger], **options
            )
            return (tmp_path / "terms.csv").read_text()

        whole = train(model_of_terms(), 3)
        model = model_of_terms()
        train(model, 2)
        # The kill came after the rows of epoch 1, and before the backup of that epoch.
        again = model_of_terms()
        again.fit(X, X, epochs=1, **options)
        assert train(again, 3, 1, resume=True) == whole
        assert train(again, 4, 3) != whole  # the default begins anew

    def test_another_file_is_not_taken_for_rows(self, tmp_path):
        path = tmp_path / "terms.csv"
        path.write_text("epoch,loss\n0,nan\n")
        logger = TermLogger(path, resume=True)
        with pytest.raises(ValueError, match="a CSV file that a TermLogger wrote"):
            logger.on_epoch_begin(0)
        assert path.read_text() == "epoch,loss\n0,nan\n"
        with pytest.raises(ValueError, match="argument `path`"):
            TermLogger(resume=True)

    def test_what_nobody_else_logs_is_computed(self):
        """Slots and Proximal, from the weights after the step."""
        twos = keras.initializers.Constant(2.0)
        slots = {
            "kernel_regularizer": kp.penalties.L1(0.5) + kp.penalties.L2(0.25),
            "bias_regularizer": keras.regularizers.L1(3.0),
            "activity_regularizer": kp.penalties.L1(0.1),
        }
        first = layers.Dense(3, kernel_initializer=twos, name="s", **slots)
        second = layers.Dense(3, bias_initializer=twos, name="p")
        third = layers.Dense(3, use_bias=False, kernel_initializer=twos, name="q")
        model = keras.Sequential([keras.Input((3,)), first, second, third])
        half = kp.strengths.LinearRamp(0.0, 10.0, steps=10, begin=1)
        sparse = kp.optimizers.Proximal(
            keras.optimizers.SGD(0.0),
            {"p/bias": kp.penalties.L1(half), "q/kernel": "box()"},
        )
        model.compile(sparse, "mse")
        logger = TermLogger()
        model.fit(X, X, batch_size=5, verbose=0, callbacks=[logger])
        found = {
            n.removeprefix(f"{model.name}_"): v for n, v in logger.rows[-1].items()
        }
        assert found == pytest.approx(
            {
                "epoch": 0,
                "batch": 1,
                "s_kernel_l1": 9.0,
                "s_kernel_l1_strength": 0.5,
                "s_kernel_l2": 9.0,
                "s_kernel_l2_strength": 0.25,
                "s_bias_l1": 0.0,
                "s_l1_strength": 0.1,
                "p_bias_l1": 6.0,
                "p_bias_l1_strength": 1.0,
                "q_kernel_box": 0.0,
                "q_kernel_box_strength": 1.0,
            }
        )

    def test_frozen_terms_have_no_rows(self):
        model = model_of_terms()
        model.layers[-1].trainable = False
        model.compile("sgd", "mse")
        logger = TermLogger()
        with pytest.warns(UserWarning, match="does not act"):
            model.fit(X, X, verbose=0, callbacks=[logger])
        assert set(logger.rows[0]) == {"epoch", "batch", "a_l1", "a_l1_strength"}


class TestGradients:
    def test_shares_by_hand(self):
        """y = W·x, with W of ones: each gradient is written down."""
        dense = layers.Dense(3, kernel_initializer="ones", use_bias=False, name="d")
        weights = {"kernel": "l1(0.3) + l2(0.2)"}
        host = kp.layers.Penalized(dense, weights=weights, outputs="l1(0.1)")
        model = keras.Sequential([keras.Input((3,)), host])
        model.compile(keras.optimizers.SGD(0.0), "half_sum_squared_error")
        logger = TermLogger(gradients=(X, X))
        model.fit(X, X, verbose=0, callbacks=[logger])
        w, x = np.ones((3, 3)), X.astype("float64")
        by_hand = {
            "rest": x.T @ (x @ w - x) / len(x),
            "d_kernel_l1": 0.3 * w,
            "d_kernel_l2": 0.4 * w,
            "d_output_l1": 0.1 * x.T @ np.ones((10, 3)) / len(x),
        }
        norms = {n: np.linalg.norm(g) for n, g in by_hand.items()}
        expected = {n: norm / sum(norms.values()) for n, norm in norms.items()}
        assert gradient_shares(model, X, X) == pytest.approx(expected, rel=1e-5)
        row = {n: logger.rows[-1][f"{n}_gradient_share"] for n in expected}
        assert row == pytest.approx(expected, rel=1e-5)

    def test_they_leave_the_model_as_it_is(self):
        model = model_of_terms()
        model.train_on_batch(X, X)
        before = [wide(v) for v in model.variables]
        shares = gradient_shares(model, X, X)
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(wide(variable), value)
        assert shares["a_l1"] == 0.0  # on the input, which no weight changes
        assert sum(shares.values()) == pytest.approx(1.0)

    def test_a_layer_that_is_called_twice(self):
        dense = layers.Dense(3, use_bias=False, name="d")
        host = kp.layers.Penalized(dense, outputs="l2(0.5)")
        inputs = keras.Input((3,))
        model = keras.Model(inputs, host(host(inputs)))
        model.compile("sgd", lambda y, z: 0.0 * z)
        model.train_on_batch(X, X)
        assert gradient_shares(model, X, X) == pytest.approx(
            {"rest": 0.0, "d_output_l2": 1.0}, abs=1e-6
        )


def test_tensorboard_shows_terms_by_itself(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    tf = pytest.importorskip("tensorflow")  # by which Keras' TensorBoard writes
    model = model_of_terms()
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = model.fit(
        X, X, epochs=3, validation_data=(X, X), verbose=0, callbacks=[board]
    ).history
    for part, prefix in (("train", ""), ("validation", "val_")):
        events = event_accumulator.EventAccumulator(str(tmp_path / part))
        events.Reload()
        for name in ("a_l1", "d_kernel_l1", "d_kernel_l1_strength", "d_kernel_l2"):
            tensors = [e.tensor_proto for e in events.Tensors(f"epoch_{name}")]
            seen = [float(tf.make_ndarray(tensor)) for tensor in tensors]
            assert seen == pytest.approx(history[prefix + name], rel=1e-6)
