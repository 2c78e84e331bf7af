"""What JAX compiles for a penalty, it compiles once for each shape."""

import re

import keras
import numpy as np
import pytest
from conftest import BACKEND
from laws.book import array, tensor
from strategies import generic

import keras_penalties as kp
from keras_penalties import compiling, penalties

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.skipif(BACKEND != "jax", reason="others don't compile eagerly")

GROUPS = penalties.Grouped(penalties.L1(0.5), axis=0)
BRANCHING = (
    GROUPS,
    penalties.Grouped(penalties.L1(0.5), groups=[[0, 3], [1, 2, 5]]),
    penalties.L1(0.5) + GROUPS,
    penalties.SpectralNorm(0.5),
    penalties.L1Ball(1.0),
)
"""Penalties with loops or branches in them: all else is compiled op by op."""


@pytest.fixture
def compilations(caplog):
    """A function that makes a call and returns what JAX says that it compiles."""

    def of(call, *args):
        caplog.clear()
        with jax.log_compiles():
            array(call(*args))
        said = [record.getMessage() for record in caplog.records]
        return [message for message in said if message.startswith("Compiling")]

    return of


def test_the_count_sees_a_branch_that_is_new_at_each_call(compilations):
    def branch(x):
        return jax.lax.cond(True, lambda: x, lambda: 0.0 * x)

    x = tensor([1.0])
    assert [len(compilations(branch, x)) for _ in range(3)][1:] == [1, 1]


@pytest.mark.parametrize("p", BRANCHING, ids=repr)
def test_a_second_eager_call_compiles_nothing(p, compilations):
    """With other numbers of the same shape, also with one t for each entry."""
    x = generic(p)[-1]
    steps = [np.float32(0.3)] if p.has_prox else []
    if p.has_prox and p.per_entry:
        steps.append(np.random.default_rng(0).uniform(0.1, 1.0, x.shape))
    calls = [(p.value, [x]), *((p.prox, [x, t]) for t in steps)]
    for call, given in calls:
        call(*map(tensor, given))
        assert compilations(call, *(tensor(0.9 * a) for a in given)) == []


def kernels_compiled(layers):
    """How many functions on 5 x 5 arrays XLA makes for a step of so many layers."""
    dense = [keras.layers.Dense(5) for _ in range(layers)]
    model = keras.Sequential([keras.Input((5,)), *dense])
    model = kp.penalize(model, {"kernel": "l2(0.1)"})
    x = np.ones((3, 5), "float32")

    def step(weights, others):
        def loss(weights):
            y, _, losses = model.stateless_call(
                weights, others, x, return_losses=True, training=True
            )
            return jax.numpy.mean(y) + sum(losses)

        slopes = jax.grad(loss)(weights)
        return [w - 0.1 * slope for w, slope in zip(weights, slopes, strict=True)]

    given = [
        [v.value for v in kind]
        for kind in (model.trainable_variables, model.non_trainable_variables)
    ]
    text = jax.jit(step).lower(*given).compile().as_text()
    found = re.findall(
        r"^%?fused_computation.*?^\}", text, flags=re.DOTALL | re.MULTILINE
    )
    alike = {re.sub(r"%[\w.\-]+|\w+\.\d+:|metadata=\{.*?\}", "", f) for f in found}
    return sum("f32[5,5]" in f for f in alike)


def test_equal_layers_share_what_is_compiled(monkeypatch):
    assert kernels_compiled(10) == kernels_compiled(14)
    monkeypatch.setattr(compiling, "FEW", 1000)  # the entries without the loop
    assert kernels_compiled(10) < kernels_compiled(14)
