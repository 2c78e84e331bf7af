"""Memory: flat in a program with ever new shapes, and small for costly penalties."""

import keras
import pytest

SOURCE = """
import ctypes, gc, sys
import keras, numpy as np, keras_penalties as kp
from keras_penalties import compiling

compiling.MOST = 4  # so that a short program shows what a long one does
P, host = kp.penalties, sys.stdin.read()

def train(units):
    penalty = P.MCP(0.01)
    inputs = keras.Input((256,))
    slot = penalty if host == "slot" else None
    dense = keras.layers.Dense(units, kernel_regularizer=slot)
    model = keras.Model(inputs, dense(inputs))
    optimizer = keras.optimizers.SGD(0.01)
    if host == "proximal":
        optimizer = kp.optimizers.Proximal(optimizer, {"kernel": penalty})
    model.compile(optimizer, "mse")
    model.train_on_batch(np.ones((4, 256)), np.zeros((4, units)))

def resident():
    keras.backend.clear_session()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20

for units in range(400, 410):
    train(units)
before = resident()
for units in range(410, 440):
    train(units)
print((resident() - before) / 30)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX and torch keep nothing of ours for a shape",
)
@pytest.mark.parametrize("host", ["slot", "proximal"])
def test_a_new_shape_takes_little_memory_for_good(fresh_process, host):
    """XLA keeps what it compiled; Keras alone takes some 1 MiB for each new shape."""
    assert float(fresh_process(SOURCE, host)) < 3.0  # MiB


MEMORY = """
def memory(name):  # getrusage would count the program that started this one
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(name))
"""

COSTLY = """
import keras, numpy as np, keras_penalties as kp
from keras import ops
from keras_penalties.autodiff import value_and_gradient, without_gradients
from keras_penalties.compiling import compiled

P = kp.penalties
sampled, bounded = P.Orthogonality(samples=16), P.Spectral(P.L1(), max_rank=32)

def once(x):
    with without_gradients():  # training differentiates once: nothing is kept
        return value_and_gradient(P.L1().value, x)

functions = {
    "sampled": lambda x: value_and_gradient(sampled.value, x),
    "bounded value": lambda x: value_and_gradient(bounded.value, x),
    "bounded prox": lambda x: bounded.prox(x, 1.0),
    "half floats": once,
}
name = input()
run, dtype = compiled(functions[name]), "bfloat16" if "half" in name else "float32"

def taken(size):
    x = np.random.default_rng(0).standard_normal((size, size), dtype="float32")
    x = ops.cast(x, dtype)
    bytes = (2 if "half" in name else 4) * size * size
    ops.convert_to_numpy(x[:1, :1])
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak of the cast
    before = memory("VmRSS")
    for found in keras.tree.flatten(run(x)):
        ops.convert_to_numpy(found[:1, :1] if len(found.shape) else found)
    return (memory("VmHWM") - before) / bytes

taken(256)  # what the libraries take at their first use
print(taken(8192 if "half" in name else 3072))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="XLA copies half floats on a CPU"
)
def test_half_floats_are_not_copied_as_a_whole(fresh_process):
    """The gradient is one weight, its blocks before they are joined another.

    With copies in float32, each two weights, it was 6 on TensorFlow and 7 on torch.
    """
    assert float(fresh_process(MEMORY + COSTLY, "half floats")) < 3.5


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sampled", "bounded value", "bounded prox"])
def test_costly_penalties_take_few_times_the_memory_of_a_weight(fresh_process, what):
    """Beside the weight: the result, a copy, and on torch what a product makes."""
    assert float(fresh_process(MEMORY + COSTLY, what)) < 3.5


STEP = """
import keras, numpy as np, keras_penalties as kp
from keras import ops

def taken(size):
    weights = [keras.Variable(np.ones((size, size), "float32")) for _ in range(6)]
    gradients = [ops.ones((size, size)) for _ in weights]
    optimizer = kp.optimizers.Proximal(keras.optimizers.SGD(0.1), {".*": "l1(0.1)"})
    optimizer.apply(gradients, weights)
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    before = memory("VmRSS")
    optimizer.apply(gradients, weights)
    return (memory("VmHWM") - before) / (4 * size * size)

taken(64)
print(taken(2048))
"""


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="JAX takes all weights at once, and TensorFlow hides what memory it reuses",
)
def test_a_proximal_step_copies_one_weight_at_a_time(fresh_process):
    """The map of one weight takes four times its memory; with copies of all it was 11.

    Six weights are penalised.
    """
    assert float(fresh_process(MEMORY + STEP)) < 5.0
