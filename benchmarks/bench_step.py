"""A training step of the 784-1024-1024-10 perceptron: with a penalty, and without."""

from __future__ import annotations

from functools import partial

import keras
import pytest
from harness import Claim, interleaved, measured
from keras import ops
from keras.layers import Dense
from steps import BACKEND, classifier, random_batch, read_once, steps_of

import keras_penalties as kp
from keras_penalties import penalties

CLASSES, NONE = 10, "no penalty"
STRENGTH = 1e-5
BAR = {"tensorflow": 1.03}.get(BACKEND)
"""Of a step without a penalty. TensorFlow runs op by op: a value reads the kernel, a
slope reads and writes, and its sum with the gradient reads twice and writes."""
FLOOR = "one read of every kernel"
FLOORS = {"Grouped(L1)": 3.0} if BACKEND == "jax" else {}
"""On JAX a bar is what a penalty adds to the step, in floors: reads of the kernels. It
is 2, except for these."""
OWN = 1.0 if BACKEND != "torch" else None
"""The bar against Keras' own."""


def floor_bar(kind, usual=2.0):
    return FLOORS.get(kind, usual) if BACKEND == "jax" else None


OURS = {
    "L1": penalties.L1(STRENGTH),
    "L2": penalties.L2(STRENGTH),
    "ElasticNet": penalties.ElasticNet(STRENGTH),
    "MCP": penalties.MCP(STRENGTH),
    "Grouped(L1)": penalties.Grouped(penalties.L1(STRENGTH), axis=0),
}
KERAS = {
    "L1": keras.regularizers.L1(STRENGTH),
    "L2": keras.regularizers.L2(STRENGTH),
    "ElasticNet": keras.regularizers.L1L2(STRENGTH / 2, STRENGTH / 4),
}
BY_HAND = {
    "L1": lambda w: STRENGTH * ops.sum(ops.absolute(w)),
    "L2": lambda w: STRENGTH * ops.sum(ops.square(w)),
}


@pytest.fixture
def bench(options, report):
    """Times models by name and reports the claims."""

    def run(title, models, claims, block=options.block):
        x, y = random_batch(options.batch, options.features, CLASSES)
        plain = next(iter(models))
        turns = {n: steps_of(m, x, y, block) for n, m in models.items()}
        turns[FLOOR] = read_once(models[plain])
        samples = interleaved(turns, options.rounds)
        floor = samples.pop(FLOOR)
        per_step = {n: [s / block for s in t] for n, t in samples.items()}
        # A claim on floors is on what a step takes beyond the plain one.
        pairs = zip(per_step[plain], floor, strict=True)
        per_step[FLOOR] = [step + read for step, read in pairs]
        report(measured(title, per_step, claims))

    return run


def perceptron(options, dense=Dense, optimizer="adam", activation="relu", slot=None):
    """784-1024-1024-10; `dense` makes the layers, `slot` goes on each kernel."""
    width, features = options.width, options.features
    args = {"kernel_regularizer": slot}
    layers = [
        keras.Input((features,)),
        dense(width, activation=activation, **args),
        dense(width, activation=activation, **args),
        dense(CLASSES, **args),
    ]
    return classifier(layers, optimizer)


def penalized(penalty):
    """Dense layers with a penalty on the kernel, each in `Penalized`."""

    def dense(*args, **kwargs):
        layer = Dense(*args, **kwargs)
        return kp.layers.Penalized(layer, weights={"kernel": penalty})

    return dense


class DenseByHand(Dense):
    """A Dense whose `call` adds the term by `add_loss`, as in Keras' guide."""

    def __init__(self, *args, penalty, **kwargs):
        super().__init__(*args, **kwargs)
        self.penalty = penalty

    def call(self, inputs, training=None):
        self.add_loss(self.penalty(self.kernel))
        return super().call(inputs, training=training)


def by_hand(penalty):
    return lambda *args, **kwargs: DenseByHand(*args, penalty=penalty, **kwargs)


def test_penalty_on_every_kernel(options, bench):
    models, claims = {NONE: perceptron(options)}, []
    for kind, penalty in OURS.items():
        ours = [f"{kind} in Penalized", f"{kind} in slots"]
        models[ours[0]] = perceptron(options, penalized(penalty))
        models[ours[1]] = perceptron(options, slot=penalty)
        claims += [Claim(name, NONE, BAR) for name in ours]
        bar = floor_bar(kind)
        claims += [Claim(name, FLOOR, bar, beyond=NONE) for name in ours]
        if kind in KERAS:
            rival = f"Keras' {type(KERAS[kind]).__name__}"
            models[rival] = perceptron(options, slot=KERAS[kind])
            claims += [Claim(name, rival, OWN) for name in ours]
            claims += [Claim(rival, NONE), Claim(rival, FLOOR, beyond=NONE)]
        if kind in BY_HAND:
            rival = f"{kind} by add_loss"
            models[rival] = perceptron(options, by_hand(BY_HAND[kind]))
            claims += [Claim(name, rival) for name in ours]
    bench("A penalty on every kernel", models, claims)


@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_proximal(options, bench, inner):
    plain = f"{inner} alone"
    models, claims = {plain: perceptron(options, optimizer=inner)}, []
    for kind in ("L1", "Grouped(L1)"):
        proximal = kp.optimizers.Proximal(inner, {".*kernel": OURS[kind]})
        name = f"Proximal({inner}), {kind}"
        models[name] = perceptron(options, optimizer=proximal)
        claims.append(Claim(name, plain, BAR if kind == "L1" else None))
        groups = 6.0 if inner == "adam" and kind != "L1" else 2.0
        bar = groups if BACKEND == "jax" else None
        claims.append(Claim(name, FLOOR, bar, beyond=plain))
    bench("Proximal steps", models, claims)


LAZY = "Orthogonality, lazily"


def hidden_penalized(width, penalty, name):
    dense = Dense(width, activation="relu", name=name)
    return kp.layers.Penalized(dense, weights={"kernel": penalty})


def test_orthogonality_on_the_hidden_kernels(options, bench):
    slots = {
        NONE: None,
        "Orthogonality": penalties.Orthogonality(STRENGTH),
        "Keras' OrthogonalRegularizer": keras.regularizers.OrthogonalRegularizer(
            STRENGTH
        ),
    }
    models = {}
    for name, slot in slots.items():
        hidden = {"activation": "relu", "kernel_regularizer": slot}
        layers = [Dense(options.width, **hidden) for _ in range(2)]
        models[name] = classifier(
            [keras.Input((options.features,)), *layers, Dense(CLASSES)]
        )
    lazy = kp.strengths.Lazy(STRENGTH)
    hosted = partial(hidden_penalized, options.width, penalties.Orthogonality(lazy))
    inner = [keras.Input((options.features,)), hosted("a"), hosted("b")]
    models[LAZY] = classifier([*inner, Dense(CLASSES)])
    ours, keras_own = list(slots)[1:]
    bench(
        "Orthogonality of the two wide kernels",
        models,
        [
            Claim(ours, keras_own, 1 / 1.6 if OWN else None, beyond=NONE),
            Claim(LAZY, keras_own, 0.1 if OWN else None, beyond=NONE),
            Claim(ours, NONE),
            Claim(keras_own, NONE),
        ],
        block=lazy.every,  # one of these steps computes the lazy penalty
    )


def test_activity_terms(options, bench):
    def model(penalty=None, slot=None):
        hidden = {"activation": "sigmoid"}
        layers = [
            keras.Input((options.features,)),
            Dense(options.width, activity_regularizer=slot, **hidden),
            *([] if penalty is None else [kp.layers.ActivityPenalty(penalty)]),
            Dense(options.width, **hidden),
            Dense(CLASSES),
        ]
        return classifier(layers)

    ours = {
        "ActivityPenalty(L1)": penalties.L1(STRENGTH),
        "ActivityPenalty(KLSparsity)": penalties.KLSparsity(STRENGTH),
    }
    keras_own = "Keras' activity_regularizer L1"
    models = {
        NONE: model(),
        **{name: model(penalty) for name, penalty in ours.items()},
        keras_own: model(slot=keras.regularizers.L1(STRENGTH)),
    }
    claims = [Claim(name, NONE, 1.03 if OWN else None) for name in ours]
    claims += [
        Claim(keras_own, NONE),
        Claim(next(iter(ours)), keras_own, OWN),
    ]
    bench("Activity terms", models, claims)
