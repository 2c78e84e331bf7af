"""Second derivatives through Keras' own layers, against differences of their outputs.

Of `tf.nn.moments` the second is wrong, of torch's `layer_norm` the third, and JAX once
had none of max pooling. Each layer stands between two dense ones, as weights on both
sides of it may show different faults.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import autodiff, compiling

LAYERS = {
    "layer_norm": lambda: layers.LayerNormalization(),
    "group_norm": lambda: layers.GroupNormalization(2, epsilon=0.1),
    "rms_norm": lambda: layers.RMSNormalization(),
    "unit_norm": lambda: layers.UnitNormalization(),
    "batch_norm": lambda: layers.BatchNormalization(),  # of its moving statistics
    "softmax": lambda: layers.Softmax(),
    "max_pooling": lambda: keras.Sequential(
        [layers.Reshape((4, 1)), layers.MaxPooling1D(), layers.Flatten()]
    ),
}
FAULTY = ("layer_norm", "max_pooling")
EVERY = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FAULTY else pytest.mark.slow) for n in LAYERS],
)


def network(name):
    rng = np.random.default_rng(3)
    net = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "tanh"),
            LAYERS[name](),
            layers.Dense(1, "softplus"),
        ]
    )
    net.set_weights([w + 0.5 * rng.normal(size=w.shape) for w in net.get_weights()])
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(np.full(4, 2.0))
    return net


def differences(function, step):
    """(f(h) − f(−h)) / 2h and (f(h) − 2·f(0) + f(−h)) / h²."""
    ahead, here, behind = (function(t) for t in (step, 0.0, -step))
    return (ahead - behind) / (2 * step), (ahead - 2 * here + behind) / step**2


@EVERY
def test_the_trace_is_that_of_the_outputs(name, precise):
    net = network(name)
    x = np.random.default_rng(4).normal(size=(8, 3))
    step = 1e-4 if precise else 0.03
    traces = np.zeros(8)
    for i in range(3):

        def moved(t, i=i):
            outputs = net(ops.convert_to_tensor(x + t * np.eye(3)[i]), training=False)
            return ops.convert_to_numpy(outputs).astype("float64")[:, 0]

        traces += differences(moved, step)[1]
    host = kp.layers.HessianTrace(net, "l2(1.0)")
    host.build((None, 3))
    weights = [ops.convert_to_tensor(v) for v in host.trainable_variables]
    state = [ops.convert_to_tensor(v) for v in host.non_trainable_variables]
    added = compiling.compiled(
        lambda x: host.stateless_call(weights, state, x, return_losses=True)[2][0]
    )
    found = float(added(ops.convert_to_tensor(x, keras.config.floatx())))
    # In float32 a second difference is good to two digits.
    assert found == pytest.approx(np.mean(traces**2), rel=1e-5 if precise else 3e-2)


@EVERY
@pytest.mark.parametrize(
    "kind", ["InputGradient", pytest.param("HessianTrace", marks=pytest.mark.slow)]
)
def test_the_gradient_by_the_weights(name, kind, precise):
    net = network(name)
    host = getattr(kp.layers, kind)(net, "l2(0.5)")
    host.build((None, 3))
    rng = np.random.default_rng(5)
    dtype = keras.config.floatx()
    x = ops.convert_to_tensor(rng.normal(size=(8, 3)), dtype)
    weights = [ops.convert_to_tensor(v) for v in host.trainable_variables]
    state = [ops.convert_to_tensor(v) for v in host.non_trainable_variables]
    ways = [ops.convert_to_tensor(rng.normal(size=w.shape), dtype) for w in weights]

    def loss(t):
        moved = [w + t * d for w, d in zip(weights, ways, strict=True)]
        return sum(host.stateless_call(moved, state, x, return_losses=True)[2])

    both = compiling.compiled(lambda t: autodiff.value_and_gradient(loss, t))

    def at(t):
        return [
            float(ops.convert_to_numpy(y).item())
            for y in both(ops.convert_to_tensor(t, dtype))
        ]

    slope = at(0.0)[1]
    numeric, _ = differences(lambda t: at(t)[0], 1e-5 if precise else 3e-3)
    bound = 1e-6 if precise else 2e-2
    assert abs(numeric) > 1e-3
    assert slope == pytest.approx(numeric, rel=bound)
