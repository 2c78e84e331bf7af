"""What `compat` gives works; a private part that Keras lacks costs its own feature.

That each of these is still needed is the matter of `test_needless.py`.
"""

import json

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import compat
from keras_penalties.compat import private
from keras_penalties.compat.names import _keys_as_configs

OURS = "keras_penalties>HalfSumSquaredError"

FEATURES = """
import json, types, importlib, warnings
import keras, numpy as np
from keras import layers

module, _, part = "%s".partition(":")
plain = importlib.import_module

def lacking(name):
    found = plain(name)
    if name != module:
        return found
    return types.SimpleNamespace(**{k: v for k, v in vars(found).items() if k != part})

importlib.import_module = lacking
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    import keras_penalties as kp
importlib.import_module = plain
X = np.ones((4, 3), "float32")

def trained(*given, loss="mse", optimizer="sgd"):
    model = keras.Sequential([keras.Input((3,)), *given])
    model.compile(optimizer, loss)
    model.train_on_batch(X, X)
    return model

def penalized(policy):
    dense = layers.Dense(3, dtype=policy)
    return kp.layers.Penalized(dense, {"kernel": "l1(0.1)"}, "l1(0.1)", dtype=policy)

features = {
    "key": lambda: trained(layers.Dense(3), loss="keras_penalties>HalfSumSquaredError"),
    "slot": lambda: trained(layers.Dense(3, kernel_regularizer=kp.penalties.L1(0.1))),
    "layer": lambda: trained(penalized("float32")),
    "mixed": lambda: trained(penalized("mixed_bfloat16")),
    "masks": lambda: trained(
        kp.layers.InputGradient(layers.Dense(3, "tanh"), "l2(0.1)")
    ),
    "proximal": lambda: trained(
        layers.Dense(3), optimizer=kp.optimizers.Proximal("sgd", {"kernel": "l1(0.1)"})
    ),
    "compact": lambda: kp.compact(trained(layers.Dense(3))),
}
found = {"import": [str(w.message) for w in warned if "private" in str(w.message)]}
for name, use in features.items():
    try:
        use()
    except Exception as error:
        found[name] = [f"{type(error).__name__}: {error}"]
print(json.dumps({name: said for name, said in found.items() if said}))
"""

# The private part, the features that need it, the words for the feature in the error.
PARTS = {
    "keras.src.losses:ALL_OBJECTS_DICT": ({"import", "key"}, "String names of losses"),
    "keras.src.backend.common.variables:AutocastScope": ({"mixed"}, "Mixed precision"),
    # A loss, and a penalty on an output, ask for the mask of what they get.
    "keras.src.backend.common.masking:get_keras_mask": (
        {"key", "layer", "mixed", "masks"},
        "Masks of tensors",
    ),
    "keras.src.backend.common.stateless_scope:get_stateless_scope": (
        {"layer", "mixed", "masks"},
        "Layers that add penalties",
    ),
    "keras.src.models.functional:Functional": ({"compact"}, "Compaction"),
    "keras.src.no_such_module:part": (set(), ""),
}


@pytest.mark.skipif(BACKEND != "jax", reason="alike on every backend: the fastest does")
@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_costs_its_own_feature(part, fresh_process):
    lost, feature = PARTS[part]
    found = json.loads(fresh_process(FEATURES % part).splitlines()[-1])
    assert set(found) == lost
    messages = [m for name, said in found.items() for m in said if name != "key"]
    for message in messages:
        assert feature in message
        assert part.replace(":", ".") in message
        assert f"Keras {keras.__version__} lacks" in message
        assert f"pip install keras=={private.NEWEST_RELEASE}" in message


def test_a_missing_attribute_names_the_feature():
    optimizer = keras.optimizers.SGD()
    with pytest.raises(RuntimeError, match=r"`Proximal`.*`SGD\._gone`"):
        private.part_of(optimizer, "_gone", "`Proximal`")


def test_the_first_place_that_has_the_part_is_taken():
    places = ["keras.gone:ops", "keras:gone", "keras:ops", "keras:layers"]
    assert private.private("Nothing", *places) is keras.ops


def test_keys_of_losses_become_configs():
    mended = _keys_as_configs({"a": OURS, "b": ["mse", OURS], "c": None})
    assert mended["a"] == mended["b"][1]
    assert mended["a"]["registered_name"] == OURS
    assert mended["b"][0] == "mse"
    assert mended["c"] is None
    assert _keys_as_configs(mended) == mended


def test_full_precision_reads_a_weight_in_its_own_dtype():
    seen = []

    class Reads(layers.Dense):
        def call(self, inputs):
            with compat.full_precision():
                # Here, not after: on TensorFlow it would be the variable itself.
                dtype = ops.convert_to_tensor(self.kernel).dtype
            seen.append(keras.backend.standardize_dtype(dtype))
            return super().call(inputs)

    Reads(2, dtype="mixed_float16")(np.ones((1, 2), "float32"))
    assert set(seen) == {"float32"}


def test_graph_tells_who_reads_which_tensor():
    dense = layers.Dense(2)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, dense(dense(inputs)))
    chain = keras.Sequential([inputs, dense, layers.ReLU()])
    for built, operations in ((model, [dense, dense]), (chain, chain.layers)):
        given, nodes, out = compat.graph(built)
        assert [node.operation for node in nodes] == operations
        read = [*given, *(t for node in nodes for t in node.outputs)]
        assert [node.input_tensors for node in nodes] == [[t] for t in read[:-1]]
        assert out == read[-1:]
    assert compat.graph(kp.models.SparseAutoencoder()) is None
