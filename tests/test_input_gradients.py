"""Penalties on derivatives by the input: closed forms, second order, state, reload."""

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import autodiff, compiling

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def total(layer, *inputs):
    layer(*map(ops.convert_to_tensor, inputs))
    return float(array(sum(layer.losses)))


class TestClosedForms:
    def test_a_linear_model_gives_ridge(self):
        """The value, and a step of training: the gradient is that of ridge."""
        dense = layers.Dense(1)
        model = keras.Sequential(
            [keras.Input((3,)), kp.layers.InputGradient(dense, "l2(0.5)")]
        )
        model.compile(keras.optimizers.SGD(0.1))
        w = array(dense.kernel)
        logs = model.train_on_batch(X, return_dict=True)
        assert logs["loss"] == pytest.approx(0.5 * np.sum(w**2), rel=1e-5)
        np.testing.assert_allclose(array(dense.kernel), w * (1 - 0.1), rtol=1e-5)
        np.testing.assert_array_equal(array(dense.bias), 0.0)

    def test_logistic_regression(self):
        dense = layers.Dense(1, activation="sigmoid")
        loss = total(kp.layers.InputGradient(dense, "l2(2.0)"), X)
        w = array(dense.kernel)
        p = sigmoid(X @ w)
        by_hand = 2.0 * np.mean((p * (1 - p)) ** 2) * np.sum(w**2)
        assert loss == pytest.approx(by_hand, rel=1e-5)

    def test_any_penalty_on_the_gradient(self):
        dense = layers.Dense(1)
        layer = kp.layers.InputGradient(dense, "l1(0.3) + l2(0.5)", name="slope")
        loss = total(layer, X)
        w = array(dense.kernel)
        by_hand = 0.3 * np.sum(np.abs(w)) + 0.5 * np.sum(w**2)
        assert loss == pytest.approx(by_hand, rel=1e-5)
        assert [t.name for t in layer.terms] == ["slope_l1", "slope_l2"]

    def test_gradient_penalty_of_a_linear_critic(self):
        """Wherever between the two batches: (‖w‖ − 1)², one-sided only above."""
        for scale, one_sided in ((2.0, False), (0.5, False), (2.0, True), (0.5, True)):
            kernel = keras.initializers.Constant(scale / np.sqrt(3))
            critic = layers.Dense(1, kernel_initializer=kernel)
            layer = kp.layers.GradientPenalty(critic, one_sided=one_sided)
            excess = max(0.0, scale - 1.0) if one_sided else scale - 1.0
            expected = pytest.approx(10.0 * excess**2, rel=1e-4, abs=1e-9)
            assert total(layer, X, X + 1.0) == expected
            assert total(kp.layers.GradientPenalty(critic, one_sided=one_sided), X) == (
                expected
            )

    def test_gradient_penalty_is_between_the_pairs(self):
        """∇½‖x‖² = x, at a share u ~ U(0, 1) of a point of length 1: E(u − 1)² = ⅓."""
        critic = layers.Lambda(lambda x: 0.5 * ops.sum(x**2, -1, keepdims=True))
        real = np.tile([[0.6, 0.8]], (20000, 1)).astype("float32")
        layer = kp.layers.GradientPenalty(critic, strength=1.0, seed=1)
        found = total(layer, real, np.zeros_like(real))
        deviation = np.sqrt((1 / 5 - 1 / 9) / len(real))
        assert found == pytest.approx(1 / 3, abs=4 * deviation)
        outputs = layer(real, 2.0 * real)
        np.testing.assert_allclose(array(outputs[0]), 0.5, rtol=1e-5)
        np.testing.assert_allclose(array(outputs[1]), 2.0, rtol=1e-5)

    def test_a_gradient_of_zero_has_a_slope(self):
        dense = layers.Dense(1, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((3,)), kp.layers.GradientPenalty(dense)])
        model.compile("sgd")
        model.train_on_batch(X)
        np.testing.assert_array_equal(array(dense.kernel), 0.0)

    @pytest.mark.parametrize("activation", ["sigmoid", "linear"])
    def test_contractive_closed_form_is_the_explicit_jacobian(self, activation):
        dense = layers.Dense(5, activation=activation, bias_initializer="normal")
        closed = total(kp.layers.Contractive(dense, 0.5), X)
        exact = total(kp.layers.Contractive(keras.Sequential([dense]), 0.5), X)
        w, b = map(array, dense.weights)
        h = sigmoid(X @ w + b)
        slope = h * (1 - h) if activation == "sigmoid" else np.ones_like(h)
        jacobian = slope[:, :, None] * w.T
        by_hand = 0.5 * np.mean(np.sum(jacobian**2, axis=(1, 2)))
        assert closed == pytest.approx(by_hand, rel=2e-6)
        assert exact == pytest.approx(by_hand, rel=2e-6)

    @pytest.mark.parametrize("probes", [1, 3])
    def test_contractive_by_probes_is_right_in_the_mean(self, probes):
        dense = layers.Dense(4, activation="tanh")
        exact = total(kp.layers.Contractive(dense, 1.0), X[:1])
        jacobian = (1 - np.tanh(X[:1] @ array(dense.kernel)) ** 2).T * array(
            dense.kernel
        ).T
        gram = jacobian @ jacobian.T
        variance = 2.0 * (np.sum(gram**2) - np.sum(np.diag(gram) ** 2))
        many = np.tile(X[:1], (20000 // probes, 1))
        layer = kp.layers.Contractive(dense, 1.0, probes=probes, seed=2)
        assert total(layer, many) == pytest.approx(
            exact, abs=4 * np.sqrt(variance / 20000)
        )

    def test_hessian_trace_of_a_quadratic(self):
        a = RNG.normal(size=(3, 3)).astype("float32")
        form = layers.Lambda(lambda x: ops.sum(ops.matmul(x, a) * x, axis=-1))
        exact = total(kp.layers.HessianTrace(form, "l2(0.5)"), X)
        assert exact == pytest.approx(0.5 * (2 * np.trace(a)) ** 2, rel=1e-5)
        estimate = kp.layers.HessianTrace(form, "l2(0.5)", probes=20, seed=3)
        symmetric = a + a.T
        off = symmetric - np.diag(np.diag(symmetric))
        raised = exact + 0.5 * 2 * np.sum(off**2) / 20  # L2 of an estimate
        found = total(estimate, np.tile(X, (500, 1)))
        assert found == pytest.approx(raised, rel=0.1)

    def test_hessian_trace_of_a_network_on_images(self):
        """Against the trace of the explicit Hessian, of inputs with several axes."""
        x = RNG.normal(size=(2, 2, 2, 1)).astype("float32")
        net = keras.Sequential([layers.Flatten(), layers.Dense(2, activation="tanh")])
        found = total(kp.layers.HessianTrace(net, "l1(1.0)"), x)
        w = array(net.layers[1].kernel)
        t = np.tanh(x.reshape(2, 4) @ w)
        traces = np.sum(-2 * t * (1 - t**2) * np.sum(w**2, axis=0), axis=-1)
        assert found == pytest.approx(np.mean(np.abs(traces)), rel=1e-4)

    def test_virtual_adversarial_of_two_linear_classes(self):
        """One direction matters, w₁ − w₂, so one step finds it, up to the sign."""
        dense = layers.Dense(2)
        layer = kp.layers.VirtualAdversarial(dense, 1.0, radius=0.5, seed=0)
        found = total(layer, X[:1])
        w = array(dense.kernel)
        gap = w[:, 0] - w[:, 1]
        logit, shift = X[:1] @ gap, 0.5 * np.linalg.norm(gap)

        def kl(z):
            p, q = sigmoid(logit), sigmoid(z)
            return np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))

        both = [kl(logit - shift), kl(logit + shift)]
        assert min(abs(found - value) for value in both) < 1e-4 * found


def networks():
    yield "mlp", (3,), [layers.Dense(4, activation="tanh"), layers.Dense(2)]
    yield "norm", (3,), [layers.LayerNormalization(), layers.Dense(1, "softplus")]
    convolution = layers.Conv2D(2, 2, activation="tanh")
    yield "max", (4, 4, 1), [convolution, layers.MaxPooling2D(), layers.Dense(1)]
    yield "lstm", (3, 2), [layers.LSTM(2)]
    yield "batch", (3,), [layers.BatchNormalization(), layers.Dense(1, "sigmoid")]


def hosts(net):
    yield "gradient", kp.layers.InputGradient(net, "l2(0.5)")
    if isinstance(net.layers[0], layers.LSTM | layers.Conv2D):
        return  # slow to compile
    yield "penalty", kp.layers.GradientPenalty(net, 0.5, radius=0.1)
    yield "one_sided", kp.layers.GradientPenalty(net, 0.5, 0.1, one_sided=True)
    yield "contractive", kp.layers.Contractive(net, 0.5)
    yield "hessian", kp.layers.HessianTrace(net, "l2(0.5)")


def directional(host, x, direction):
    """The total at `weights + t·direction`, as a function of t."""
    weights = [ops.convert_to_tensor(v) for v in host.trainable_variables]
    state = [ops.convert_to_tensor(v) for v in host.non_trainable_variables]
    x = ops.convert_to_tensor(x, weights[0].dtype)

    def at(t):
        moved = [w + t * d for w, d in zip(weights, direction, strict=True)]
        _, _, losses = host.stateless_call(moved, state, x, return_losses=True)
        return sum(losses)

    return at


SLOW = ("norm", "lstm", "batch")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name, _, _ in networks()
    ],
)
def test_second_order_against_finite_differences(name, precise):
    ((shape, stack),) = [(shape, stack) for n, shape, stack in networks() if n == name]
    net = keras.Sequential([keras.Input(shape), *stack])
    rng = np.random.default_rng(0)  # whatever ran before, for no kink may lie near
    x = rng.normal(size=(4, *shape))
    dtype = "float64" if precise else "float32"
    tensor = ops.convert_to_tensor
    direction = [
        tensor(rng.normal(size=v.shape), dtype) for v in net.trainable_variables
    ]
    h = 1e-5 if precise else 1e-2
    for kind, host in hosts(net):
        host.build((None, *shape))
        at = directional(host, x, direction)
        gradient = compiling.compiled(lambda t, at=at: autodiff.gradient(at, t))
        at = compiling.compiled(at)
        slope = float(array(gradient(tensor(0.0, dtype))))
        ahead, behind = (float(array(at(tensor(t, dtype)))) for t in (h, -h))
        numeric = (ahead - behind) / (2 * h)
        assert abs(numeric) > 1e-4, kind
        # Differences of float32 values, the curvature of a step of 0.01 beside them.
        bound = 1e-6 if precise else 3e-2
        assert slope == pytest.approx(numeric, rel=bound, abs=bound * 1e-2), kind


class TestState:
    def test_batch_statistics_move_once(self):
        norm = layers.BatchNormalization(momentum=0.9)
        net = keras.Sequential([keras.Input((3,)), norm, layers.Dense(1, "tanh")])
        model = keras.Sequential(
            [keras.Input((3,)), kp.layers.InputGradient(net, "l2(0.5)")]
        )
        model.compile("sgd")
        model.train_on_batch(X)
        np.testing.assert_allclose(array(norm.moving_mean), 0.1 * X.mean(0), rtol=1e-5)

    @pytest.mark.parametrize("host", ["input_gradient", "gradient_penalty"])
    def test_random_outputs_are_those_of_the_bare_layer_and_move_its_seed_once(
        self, host
    ):
        """They come from the derivative's forward pass, at the seed before the call."""
        found, seeds = [], []
        for wrapped in (False, True):
            drop = layers.Dropout(0.5, seed=7)
            net = keras.Sequential([keras.Input((3,)), drop])
            layer = net
            if wrapped and host == "input_gradient":
                layer = kp.layers.InputGradient(net, "l2(0.5)")
            elif wrapped:
                layer = kp.layers.GradientPenalty(net)
            x = ops.convert_to_tensor(X)
            found.append([array(layer(x, training=True)) for _ in range(2)])
            seeds.append(array(drop.seed_generator.state))
        np.testing.assert_array_equal(found[0], found[1])
        assert (found[0][0] != found[0][1]).any()
        np.testing.assert_array_equal(seeds[0], seeds[1])

    def test_the_wrapped_layers_own_losses_count_once(self):
        inner = layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.3))
        net = keras.Sequential(
            [keras.Input((3,)), inner, kp.layers.ActivityPenalty("l2(0.2)", name="a")]
        )
        host = kp.layers.InputGradient(net, "l2(0.5)", name="slope")
        model = keras.Sequential([keras.Input((3,)), host])
        model.compile(keras.optimizers.SGD(0.0))
        w = array(inner.kernel)
        by_hand = {
            "a_l2": 0.2 * np.mean((X @ w) ** 2),
            "slope": 0.5 * np.sum(w**2),
        }
        by_hand["loss"] = sum(by_hand.values()) + 0.3 * np.sum(w**2)
        for logs in (
            model.evaluate(X, verbose=0, return_dict=True),
            model.train_on_batch(X, return_dict=True),
        ):
            assert set(logs) == set(by_hand)
            for name, value in by_hand.items():
                assert logs[name] == pytest.approx(value, rel=1e-5), name

    @pytest.mark.slow_on_tensorflow
    def test_dropout_and_random_probes_train_under_jit(self):
        net = keras.Sequential(
            [layers.Dense(4, "tanh"), layers.Dropout(0.5)], name="code"
        )
        x = keras.Input((3,))
        h = kp.layers.Contractive(net, 0.1, probes=2)(x)
        critic = layers.Dense(1, name="critic")
        h, _ = kp.layers.GradientPenalty(critic)(h, layers.Rescaling(0.5)(h))
        h = layers.Dense(2)(h)
        h = kp.layers.VirtualAdversarial(layers.Dense(2), name="vat")(h)
        model = keras.Model(x, h)
        model.compile("sgd", loss="mse", jit_compile=BACKEND != "torch")
        history = model.fit(X, X[:, :2], epochs=2, batch_size=4, verbose=0).history
        terms = {"code_contractive", "critic_gradient_penalty", "vat"}
        assert set(history) == {"loss", *terms}
        assert np.isfinite([v for values in history.values() for v in values]).all()
        model.predict(X, verbose=0)

    def test_a_mask_reaches_the_gradient(self):
        """Of a mean over two valid steps of four, each entry's slope is ½."""
        x = RNG.normal(size=(2, 4, 3)).astype("float32")
        x[:, 2:] = 0.0
        masked = layers.Masking()(ops.convert_to_tensor(x))
        host = kp.layers.InputGradient(layers.GlobalAveragePooling1D(), "l2(1.0)")
        host(masked)
        assert float(array(host.losses[0])) == pytest.approx(2 * 3 * 0.25, rel=1e-5)

    def test_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_float16")
        dense = layers.Dense(1, kernel_initializer="ones")
        host = kp.layers.InputGradient(dense, "l2(0.5)")
        assert total(host, X) == pytest.approx(1.5, rel=1e-3)

    def test_attention(self):
        """torch's fast attention has no second derivative, and must not be taken."""
        x = keras.Input((4, 2))
        net = keras.Model(x, layers.MultiHeadAttention(1, 2)(x, x))
        model = keras.Sequential(
            [keras.Input((4, 2)), kp.layers.InputGradient(net, "l2(0.5)", name="slope")]
        )
        model.compile(keras.optimizers.Adam(0.01))
        x = RNG.normal(size=(4, 4, 2)).astype("float32")
        history = model.fit(x, epochs=5, verbose=0).history["slope"]
        assert history[-1] < history[0]


class TestDerivative:
    def network(self):
        return keras.Sequential(
            [keras.Input((2,)), layers.Dense(5, "tanh"), layers.Dense(2)], name="net"
        )

    def test_first_and_second_order_by_hand(self):
        net = self.network()
        x = X[:, :2]
        w, b, v, _ = map(array, net.weights)
        t = np.tanh(x @ w + b)
        first = np.einsum("nh,ih,ho->noi", 1 - t**2, w, v)
        second = np.einsum("nh,ih,jh,ho->noij", -2 * t * (1 - t**2), w, w, v)
        for order, expected in ((1, first), (2, second)):
            found = array(kp.layers.Derivative(net, order)(x))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def physics(self):
        """u″ + u = 0: the residual, and the values at two points, in one loss."""

        @kp.register(package=f"physics_{RNG.integers(1 << 30)}")
        def oscillator(u, second, weight, value):
            residual = ops.square(second[:, 0, 0, 0] + u[:, 0])
            return residual + weight * ops.square(u[:, 0] - value)

        net = keras.Sequential(
            [keras.Input((1,)), layers.Dense(12, "tanh"), layers.Dense(1)], name="u"
        )
        x, weight, value = keras.Input((1,)), keras.Input(()), keras.Input(())
        u, second = net(x), kp.layers.Derivative(net, order=2)(x)
        term = kp.layers.AddLoss(oscillator, name="residual")
        passed = term(u, second=second, weight=weight, value=value)
        model = keras.Model([x, weight, value], passed)
        model.compile(keras.optimizers.Adam(0.03))
        points = np.linspace(0, 1.5, 16, dtype="float32")[:, None]
        known = np.zeros(16, "float32")
        known[[0, -1]] = 16.0
        return net, model, [points, known, np.cos(points[:, 0])]

    @pytest.mark.slow_on_tensorflow
    def test_a_physics_residual_is_learned_and_reloads(self, tmp_path):
        net, model, data = self.physics()
        many = [np.concatenate([d] * 100) for d in data]
        model.fit(many, epochs=3, batch_size=16, shuffle=False, verbose=0)
        error = np.max(np.abs(net.predict(data[0], verbose=0) - np.cos(data[0])))
        assert error < 0.05
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert len(again.trainable_variables) == 4  # the network is one, not two
        for each in (model, again):
            each.compile("sgd")
        logs = [m.evaluate(data, verbose=0, return_dict=True) for m in (model, again)]
        assert logs[0]["residual"] == pytest.approx(logs[1]["residual"], rel=1e-5)

    def test_shapes(self):
        with pytest.raises(ValueError, match="a layer from"):
            kp.layers.Derivative(layers.Dense(2))(ops.ones((2, 3, 4)))
        with pytest.raises(ValueError, match="argument `order`"):
            kp.layers.Derivative(layers.Dense(2), order=0)


class TestRefusals:
    @pytest.mark.parametrize("kind", ["InputGradient", "Contractive", "HessianTrace"])
    def test_what_has_no_input_gradient(self, kind):
        def host(layer):
            wrap = getattr(kp.layers, kind)
            return wrap(layer, 1.0) if kind == "Contractive" else wrap(layer, "l2")

        with pytest.raises(ValueError, match="floats, to be differentiated"):
            host(layers.Embedding(3, 2))(np.zeros((2, 1), "int32"))
        with pytest.raises(ValueError, match="one of one input and one output"):
            host(layers.Add())([ops.ones((2, 3)), ops.ones((2, 3))])
        with pytest.raises(ValueError, match="argument `layer`"):
            host(lambda x: x)

    def test_several_inputs_or_outputs(self):
        a, b = keras.Input((3,)), keras.Input((3,))
        two_in = keras.Model([a, b], layers.Add()([a, b]))
        two_out = keras.Model(a, [layers.Dense(2)(a), layers.Dense(3)(a)])
        x = ops.ones((2, 3))
        kinds = {"InputGradient": "l2", "HessianTrace": "l2", "VirtualAdversarial": 1.0}
        kinds |= {"GradientPenalty": 1.0, "Contractive": 1.0, "Derivative": 1}
        for kind, argument in kinds.items():
            for net, inputs in ((two_in, [x, x]), (two_out, x)):
                host = getattr(kp.layers, kind)(net, argument)
                with pytest.raises(ValueError, match="argument `layer`"):
                    host(inputs)
        with pytest.raises(ValueError, match="one of one input and one output"):
            kp.layers.GradientPenalty(two_in)([x, x], [x, x])

    def test_arguments(self):
        dense = layers.Dense(1)
        for wrong in (
            lambda: kp.layers.GradientPenalty(dense, -1.0),
            lambda: kp.layers.GradientPenalty(dense, radius=-1.0),
            lambda: kp.layers.GradientPenalty(dense, one_sided=1),
            lambda: kp.layers.Contractive(dense, probes=0),
            lambda: kp.layers.HessianTrace(dense, "l2", probes=1.5),
            lambda: kp.layers.VirtualAdversarial(dense, radius=0.0),
            lambda: kp.layers.VirtualAdversarial(dense)(X),
        ):
            with pytest.raises(ValueError, match="Invalid value for argument"):
                wrong()
