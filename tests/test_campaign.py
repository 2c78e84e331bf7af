"""The campaign's fixed slice, a fresh random one, and the bugs that it must find."""

from __future__ import annotations

import os
import time

import pytest
from campaign import forward, limits, random_models
from campaign.arrays import BACKEND
from campaign.describe import (
    Call,
    Fit,
    Graph,
    Input,
    Layer,
    Loss,
    Model,
    Optimizer,
    Penalty,
    Rule,
    Strength,
    from_json,
    to_json,
)
from campaign.features import features
from campaign.outcome import Outcome
from campaign.pool import covering, pool
from keras import ops

from keras_penalties import compat, penalties
from keras_penalties.hosting import logs, targets
from keras_penalties.layers import endpoint
from keras_penalties.strengths import Learned, Target

EVERYTHING = {
    "host": "slot, activity slot, Penalized weights, Penalized outputs, "
    "activity_penalty, add_loss, input_gradient, gradient_penalty, contractive, "
    "penalize weights, penalize outputs, Proximal, Penalizing",
    "layer": "dense, conv1d, conv2d, embedding, masking, lstm, attention, model, "
    "layer_normalization, batch_normalization, pooling, add",
    "strength": "constant, linear, cosine, cyclical, exponential, piecewise, lazy, "
    "target, learned, running mean",
    "penalty": "l1, l2, elastic_net, huber_l1, non_negative, grouped, hoyer, "
    "kl_sparsity, decorrelation, variance_covariance",
    "graph": "shared layer; shared layer, moving strength; several inputs; "
    "several outputs; masks",
    "style": "functional, sequential, subclassed",
    "loss": "mse, half, pinball, crossentropy, unknown labels, sample weights, "
    "class weights",
    "mode": "float32, mixed_bfloat16, jit auto, jit True, jit False, eager, frozen, "
    "ragged last batch, batch of one, steps_per_execution, gradient accumulation",
}
NOT_HERE = {
    "jax": {"host: activity slot"},
    "torch": {"mode: jit True", "mode: steps_per_execution"},
}


def everything() -> set[str]:
    """What the slice must have in it on this backend: see `limits` for the rest."""
    found = set()
    for kind, words in EVERYTHING.items():
        separator = "; " if ";" in words else ", "
        found |= {f"{kind}: {word}" for word in words.split(separator)}
    return found - NOT_HERE.get(BACKEND, set())


@pytest.mark.slow
def test_the_fixed_slice():
    chosen = covering(pool(seed=20, count=200))
    assert everything() <= set().union(*map(features, chosen))
    faults = {repr(m): found for m in chosen if (found := _faults(m))}
    assert not faults, "\n".join(f"{v[:3]}\n{k}" for k, v in faults.items())


@pytest.mark.random
@pytest.mark.slow
def test_a_fresh_slice():
    """The seed is in what a failure prints: `CAMPAIGN_SEED` gives the same slice."""
    seed = int(os.environ.get("CAMPAIGN_SEED", time.time_ns() % 100_000))
    print(f"\nCAMPAIGN_SEED={seed} on {BACKEND}")
    campaign, start, part = random_models.Campaign(seed), time.monotonic(), 0
    while time.monotonic() - start < 30.0:
        random_models.Chunk(campaign, seed * 100_003 + part, None).run(4)
        part += 1
    print(f"{campaign.models} models, {sum(campaign.compared.values())} values")
    assert not campaign.failures, f"CAMPAIGN_SEED={seed}"


def _faults(model: Model) -> list[str]:
    return random_models.faults_of(model)[0]


def test_descriptions_go_through_json_and_repr():
    for model in pool(seed=1, count=20):
        assert from_json(to_json(model)) == model
        assert eval(repr(model)) == model


def test_limits_say_why():
    assert all(function.__doc__ for function in limits.LIMITS)


# Bugs that are planted in the package, each beside a small model that shows it.


def chain(*layers: Layer, shape: str = "flat", times: int = 1, **others) -> Model:
    """Layers one after the other, the last but one called so many times."""
    head = Layer("dense", "head", {"activation": "linear"})
    names = [x.name for x in layers]
    names = [*names, *names[-1:] * (times - 1), "head"]
    if shape != "flat":
        pooling = Layer("pooling", "pooling", {"image": False})
        layers, names = (*layers, pooling), [*names[:-1], "pooling", "head"]
    calls = tuple(
        Call(name, (f"t{i}" if i else "x",), f"t{i + 1}")
        for i, name in enumerate(names)
    )
    inputs = (Input("x", shape),)
    graph = Graph(inputs, (*layers, head), calls, (calls[-1].output,))
    return Model(graph, **{"fit": Fit(jit=False), **others})


TANH = {"activation": "tanh"}
L1, L2 = Penalty("l1"), Penalty("l2")
RAMP = Strength("linear", {"start": 0.1, "end": 0.5, "steps": 3, "begin": 0})
HELD = Strength(
    "target",
    {
        "value": 0.2,
        "of": "mean",
        "kind": "<=",
        "initial": 0.1,
        "rate": 0.05,
        "relative": False,
        "damping": 5.0,
        "tolerance": 0.1,
    },
)
SHARED = chain(Layer("dense", "d", TANH, outputs=(Penalty("l2", RAMP),)), times=3)
LOGGED = chain(Layer("dense", "d", TANH, weights={"kernel": (L2,)}))


def masked(penalty: Penalty) -> Model:
    """A penalty on what a layer gives out, of sequences that are padded."""
    given = {"momentum": None}
    host = Layer("activity_penalty", "a", given, penalties=(penalty,))
    masking, dense = Layer("masking", "m"), Layer("dense", "d", TANH)
    return chain(masking, dense, host, shape="padded")


MASKED, HELD_MASKED = masked(L1), masked(Penalty("l1", HELD))
PROXIMAL = chain(optimizer=Optimizer("proximal", penalties={"head/kernel": (L1,)}))
RULED = chain(
    Layer("dense", "d", TANH), rules=(Rule("d", None, (L2,)),), losses=(Loss("half"),)
)


def balanced() -> Model:
    """A model with a learned strength, and a target that is partly unknown."""
    graph = Graph(
        (Input("x", "flat"), Input("y", "unknown_target")),
        (
            Layer("dense", "d", TANH),
            Layer(
                "add_loss",
                "extra",
                {"loss": "half", "ignore": True},
                penalties=(Penalty("loss", Strength("learned", {"initial": 0.5})),),
            ),
        ),
        (Call("d", ("x",), "t0"), Call("extra", ("t0", "y"), "t1")),
        ("t1",),
    )
    return Model(graph, fit=Fit(jit=False))


def _twice_the_slope(self, x):
    square = ops.square(x)
    return 2.0 * square - ops.stop_gradient(square)


def _without_mask(penalty, x):
    value = penalty.value(x)
    return value / ops.cast(ops.shape(x)[0], value.dtype)


BUGS = {
    "a strength that moves within a pass": (
        SHARED,
        (compat.LossLedger, "is_open", lambda self, layer: False),
    ),
    "a missing log": (
        LOGGED,
        (logs.TermLogs, "means", property(lambda self: self._shown.means[:-1])),
    ),
    "a mask ignored": (MASKED, (targets, "_output_value", _without_mask)),
    "a slope twice as large": (RULED, (penalties.L2, "entrywise", _twice_the_slope)),
    "a proximal map without its strength": (
        PROXIMAL,
        (penalties.L1, "compute_prox", lambda self, x, t: x),
    ),
    "a target without its damping": (
        HELD_MASKED,
        (Target, "damping", property(lambda self: 0.0, lambda self, x: None)),
    ),
    "a learned strength without its logarithm": (
        balanced(),
        (Learned, "added", lambda self, strength, value: strength * value),
    ),
    "unknown targets that count": (
        balanced(),
        (endpoint, "hosted", lambda loss, ignore: loss),
    ),
}


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name, monkeypatch):
    model, (owner, attribute, bug) = BUGS[name]
    assert not _faults(model)
    monkeypatch.setattr(owner, attribute, bug, raising=False)
    found = _faults(model)
    assert found
    assert not any(" at " in fault for fault in found), "an error, no difference"


@pytest.mark.slow
@pytest.mark.one_backend
def test_what_plain_keras_has_too_is_no_fault(monkeypatch):
    monkeypatch.setitem(forward.ACTIVATIONS, "tanh", lambda x: x)
    faults, outcome = random_models.faults_of(LOGGED)
    assert not faults
    assert any("gradient" in name for name in outcome.elsewhere)


def test_what_is_far_worse_than_plain_keras_is_a_fault():
    outcome, without = Outcome(), Outcome()
    outcome.compare("weights", "w", 1.0, 1.001, "float32")
    without.compare("weights", "w", 1.0, 1.0 + 1e-5, "float32")
    outcome.judge(without)
    assert outcome.faults
    assert not outcome.elsewhere


def test_what_a_rounding_at_the_start_explains_is_no_fault():
    outcome, shaken = Outcome(), Outcome()
    for name, came in (("grown", 1.001), ("wrong", 1.001)):
        outcome.compare("logs", name, came, 1.0, "float32")
    shaken.compare("logs", "grown", 1.01, 1.0, "float32")
    shaken.compare("logs", "wrong", 1.0001, 1.0, "float32")
    outcome.excuse(shaken, 1.0, "by a rounding")
    outcome.judge(Outcome())
    assert list(outcome.elsewhere) == ["grown"]
    assert len(outcome.faults) == 1


@pytest.mark.slow
@pytest.mark.one_backend
def test_a_bug_is_found_at_random_and_made_small(monkeypatch):
    monkeypatch.setattr(penalties.L2, "entrywise", _twice_the_slope)
    monkeypatch.setattr(random_models, "SHRINKING", 300.0)
    campaign = random_models.Campaign(3)
    random_models.Chunk(campaign, 3, None).run(60)
    (failure,) = campaign.failures
    shrunk = eval(failure["model"])
    assert len(shrunk.graph.layers) <= 4
    assert any("gradient" in fault or "loss" in fault for fault in failure["faults"])
