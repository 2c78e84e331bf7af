"""What a step runs on TensorFlow for a penalty, beside what Keras' own makes it run.

TensorFlow runs op by op on a processor, so that what a penalty costs is its ops.
"""

from collections import Counter

import keras
import numpy as np
import pytest
from conftest import BACKEND

import keras_penalties as kp

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="others fuse their ops")

PAIRS = [
    (kp.penalties.L1(0.1), keras.regularizers.L1(0.1)),
    (kp.penalties.L2(0.1), keras.regularizers.L2(0.1)),
]


def in_slots(regularizer):
    return lambda units: keras.layers.Dense(units, kernel_regularizer=regularizer)


def made(layer, layers):
    return keras.Sequential([keras.Input((4,)), *(layer(4) for _ in range(layers))])


def penalized(penalty):
    return lambda layers: kp.penalize(
        made(keras.layers.Dense, layers), {"kernel": penalty}
    )


def ops_of_a_step(model):
    """How often each op stands in a step; a constant costs nothing."""
    model.compile("sgd", "mse")
    x = np.ones((2, 4), "float32")
    model.fit(x, x, verbose=0)
    graph = tf.function(model.train_step).get_concrete_function((x, x)).graph
    nodes = graph.as_graph_def().node
    return Counter(node.op for node in nodes if node.op != "Const")


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["l1", "l2"])
def test_a_slot_runs_the_ops_of_keras_own(ours, theirs):
    found = [ops_of_a_step(made(in_slots(r), 2)) for r in (ours, theirs)]
    assert found[0] == found[1]
    assert sum(found[0].values()) > sum(ops_of_a_step(made(in_slots(None), 2)).values())


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["l1", "l2"])
def test_a_rule_runs_no_more_for_each_weight_than_keras_own(ours, theirs):
    def of_each(make):
        few, many = (sum(ops_of_a_step(make(layers)).values()) for layers in (2, 12))
        return (many - few) / 10

    own = of_each(lambda layers: made(in_slots(theirs), layers))
    assert of_each(penalized(ours)) <= own
