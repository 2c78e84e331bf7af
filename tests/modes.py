"""Every host of a penalty in small models, and every mode in which Keras trains.

Each model is `(batch, 3) -> (batch, 2)`, its weights drawn with one seed, so that two
models of one host are equal. A model has several hosts side by side, each with its own
layers and its own logs, and gives out the sum of what they give out: a model costs
seconds to compile.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from conftest import BACKEND
from keras import layers, ops
from keras.optimizers import SGD

import keras_penalties as kp

P, S, L = kp.penalties, kp.strengths, kp.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")
Y = RNG.normal(size=(8, 2)).astype("float32")
BATCH, EPOCHS, RATE = 2, 2, 0.1
PASSES = EPOCHS * len(X) // BATCH

RAMP = S.LinearRamp(0.1, 0.9, 10)
STRENGTHS = {
    "constant": 0.3,
    "ramp": RAMP,
    "lazy": S.Lazy(0.3, every=2),
    "target": kp.Target(0.5, rate=0.05),
}
Logs = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Mode:
    """One way to train.

    Args:
        arguments: Of `compile`.
        accumulate: Over how many batches a gradient is gathered.
        policy: The dtype policy of the layers.
        bound: By how much a log may differ from the plain mode's, as a part of its
            largest value.
    """

    arguments: Mapping[str, Any]
    accumulate: int | None = None
    policy: str = "float32"
    bound: float = 2e-6


PLAIN = Mode({"jit_compile": "auto"})
MODES = {
    "jit": Mode({"jit_compile": True}),
    "no jit": Mode({"jit_compile": False}),
    "eager": Mode({"run_eagerly": True}),
    "several steps": Mode({"steps_per_execution": 2}),
    "accumulation": Mode({}, accumulate=2),
    "all at once": Mode({"jit_compile": True, "steps_per_execution": 2}, accumulate=2),
    "float64": Mode({}, policy="float64"),
    # A rounding is 2⁻¹² and 2⁻⁹ of a number; some ten of them are in one log.
    "mixed_float16": Mode({}, policy="mixed_float16", bound=3e-3),
    "mixed_bfloat16": Mode({}, policy="mixed_bfloat16", bound=2e-2),
}


@dataclasses.dataclass(frozen=True)
class Host:
    """A model with hosts of penalties, and the optimizer that trains it."""

    network: Callable[[Any], Any]
    """From the input to the output; of an endpoint from `[x, y]`."""
    whole: Callable[[Any], Any] = lambda model: model
    optimizer: Callable[[Any], Any] = lambda inner: inner
    in_optimizer: bool = False
    endpoint: bool = False
    drawn: bool = False
    """Whether the hosts draw random numbers."""
    sensitivity: float = 1.0
    """How much more a rounding weighs in the logs: see `docs/campaign.md`."""
    twin: Host | None = None
    """The same with the regularizers of Keras."""

    def model(self, mode: Mode, rate: float = RATE) -> Any:
        """A new model, compiled."""
        keras.utils.set_random_seed(0)
        x, y = keras.Input((3,), name="x"), keras.Input((2,), name="y")
        with policy(mode.policy):
            if self.endpoint:
                model = keras.Model([x, y], self.network([x, y]))
            else:
                model = self.whole(keras.Model(x, self.network(x)))
        if mode.policy == "float64":  # its random numbers are others
            model.set_weights(self.model(PLAIN).get_weights())
        optimizer = self.optimizer(
            SGD(rate, gradient_accumulation_steps=mode.accumulate)
        )
        if mode.policy == "mixed_float16":
            # With the scale that Keras starts from, 2¹⁵, the first gradients overflow.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 2.0**8)
        loss = None if self.endpoint else "mse"
        model.compile(optimizer, loss, **mode.arguments)
        return model

    def data(self, start: int = 0, size: int = len(X)) -> list[Any]:
        x, y = X[start : start + size], Y[start : start + size]
        return [[x, y]] if self.endpoint else [x, y]


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def fitted(model: Any, host: Host, batch: int = BATCH) -> Logs:
    """The logs of two epochs."""
    return model.fit(
        *host.data(), batch_size=batch, epochs=EPOCHS, shuffle=False, verbose=0
    ).history


def tested(model: Any, host: Host) -> Logs:
    """The logs of an evaluation, and what `predict` gives."""
    logs = model.evaluate(*host.data(), batch_size=BATCH, verbose=0, return_dict=True)
    guesses = model.predict(host.data()[0], batch_size=BATCH, verbose=0)
    return {"predictions": guesses, **{f"val_{k}": v for k, v in logs.items()}}


def trained(host: Host, mode: Mode, batch: int = BATCH) -> tuple[Any, Logs]:
    """A new model of the host, trained in a mode, and all that it shows."""
    model = host.model(mode)
    return model, {**fitted(model, host, batch), **tested(model, host)}


def accumulated(host: Host, over: int) -> Logs:
    """The same under gradient accumulation, by hand: nothing but plain steps.

    Each batch is trained on from the weights before the step, at a rate of 1, which
    shows its gradient. An optimizer's penalties take part in real steps only, so that
    their steps are those on larger batches.
    """
    if host.in_optimizer:
        return trained(host, PLAIN, over * BATCH)[1]
    model, seen = host.model(PLAIN, rate=1.0), []
    for batch in range(PASSES):
        weights = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
        if batch % over == 0:
            start, step = weights, [np.zeros_like(w) for w in weights]
        data = host.data(batch * BATCH % len(X), BATCH)
        one = model.fit(*data, batch_size=BATCH, shuffle=False, verbose=0)
        seen.append(one.history)
        last = batch % over == over - 1
        for i, variable in enumerate(model.trainable_variables):
            step[i] += start[i] - ops.convert_to_numpy(variable)
            variable.assign(start[i] - last * RATE / over * step[i])
    logs = {name: np.ravel([logs[name] for logs in seen]) for name in seen[0]}
    epochs = {k: v.reshape(EPOCHS, -1).mean(axis=1) for k, v in logs.items()}
    return {**epochs, **tested(model, host)}


def refused_by_keras(mode: Mode) -> bool:
    """Whether Keras itself has no such mode on this backend."""
    return BACKEND == "torch" and "steps_per_execution" in mode.arguments


def draws_differ(mode: Mode) -> bool:
    """Whether a plain model of Keras draws other random numbers in the mode.

    Under XLA on TensorFlow it does.
    """
    drop = Host(lambda x: dense("line")(layers.Dropout(0.5, seed=3)(x)))
    mode = dataclasses.replace(mode, accumulate=None, policy="float32")
    losses = [trained(drop, m)[1]["loss"] for m in (mode, PLAIN)]
    return not np.allclose(*losses, rtol=1e-3)


def dense(name: str, units: int = 2, **kwargs: Any) -> Any:
    return layers.Dense(units, activation="tanh", name=name, **kwargs)


def side_by_side(*networks: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The sum of what the networks give out."""
    return lambda x: layers.Add()([network(x) for network in networks])


def weights(name: str, strength: Any) -> Callable[[Any], Any]:
    penalty = P.L2(strength) + P.L1(0.1)
    return L.Penalized(dense(name), weights={"kernel": penalty})


def outputs(name: str, strength: Any) -> Callable[[Any], Any]:
    """A shared layer, which is called three times."""

    def network(x: Any) -> Any:
        shared = L.Penalized(dense(name, 3), outputs=P.L2(strength))
        return dense(f"after_{name}")(shared(shared(shared(x))))

    return network


def activity(name: str, penalty: Any, **kwargs: Any) -> Callable[[Any], Any]:
    def network(x: Any) -> Any:
        code = layers.Dense(4, "sigmoid", name=f"before_{name}")(x)
        code = L.ActivityPenalty(penalty, name=name, **kwargs)(code)
        return dense(f"after_{name}")(code)

    return network


def between(x: Any) -> Any:
    critic = L.GradientPenalty(dense("between"), 0.5, seed=3)
    return layers.Add()(critic(x, layers.Rescaling(-0.5)(x)))


@kp.register(package="modes")
def residual(y_pred: Any, slopes: Any) -> Any:
    return ops.sum((y_pred[:, :, None] - slopes) ** 2, axis=(1, 2))


def physics(x: Any) -> Any:
    line = dense("physics")
    return L.AddLoss(residual, RAMP)(line(x), slopes=L.Derivative(line)(x))


def endpoint(inputs: Any) -> Any:
    x, y = inputs
    learned = {"near": ("mse", 1.0), "far": ("huber", "auto")}
    losses = {name: (loss, S.Learned(at)) for name, (loss, at) in learned.items()}
    losses |= {name: ("mae", strength) for name, strength in STRENGTHS.items()}
    return layers.Add()(
        [
            L.AddLoss(loss, strength, name=name)(dense(f"of_{name}")(x), y_true=y)
            for name, (loss, strength) in losses.items()
        ]
    )


def plain_attention(x: Any, around: Callable[[Any], Any] = lambda layer: layer) -> Any:
    tokens = layers.Reshape((3, 1))(x)
    heads = around(layers.MultiHeadAttention(2, 3, name="heads"))
    return dense("after")(layers.Flatten()(heads(tokens, tokens)))


def attention(x: Any) -> Any:
    rules = {"query/kernel": P.L2(RAMP)}
    # No L1: where outputs are small, a rounding turns its slope from -1 to 1.
    return plain_attention(
        x, lambda layer: L.Penalized(layer, rules, outputs="l2(0.2)")
    )


def lines(x: Any) -> Any:
    return side_by_side(*map(dense, STRENGTHS))(x)


def penalized(model: Any) -> Any:
    rules = {f"{name}/kernel": P.L2(strength) for name, strength in STRENGTHS.items()}
    return kp.penalize(model, {**rules, "ramp": {"outputs": P.L1(RAMP)}})


def by_optimizer(kind: str, names: list[str]) -> Host:
    rules = {f"{name}/kernel": P.L1(STRENGTHS[name]) for name in names}
    optimizer = getattr(kp.optimizers, kind)
    return Host(lines, optimizer=lambda o: optimizer(o, rules), in_optimizer=True)


def slot(name: str) -> Host:
    ours, theirs = (
        Host(lambda x, r=r: dense("line", **{name: r})(x))  # type: ignore[misc]
        for r in (P.L1(0.2) + P.L2(0.2), keras.regularizers.L1L2(0.2, 0.2))
    )
    return dataclasses.replace(ours, twin=theirs)


HOSTS = {
    "slots": slot("kernel_regularizer"),
    "activity slots": slot("activity_regularizer"),
    "weights": Host(
        lambda x: side_by_side(*(weights(*s) for s in STRENGTHS.items()))(x)
    ),
    "outputs": Host(side_by_side(*(outputs(*s) for s in STRENGTHS.items()))),
    "activities": Host(
        side_by_side(
            activity("sum", "l1(0.1) + l2(0.2)"),
            activity("ramp", P.L1(RAMP)),
            activity("mean", "kl_sparsity(0.5)", momentum=0.5),
        )
    ),
    "derivatives": Host(
        lambda x: side_by_side(
            L.InputGradient(dense("slope"), P.L2(RAMP)),
            L.GradientPenalty(dense("norm"), 0.5),
            L.Contractive(dense("rows"), 0.3),
            L.HessianTrace(dense("trace"), "l2(0.1)"),
            physics,
        )(x),
        sensitivity=5.0,
    ),
    "random derivatives": Host(
        lambda x: side_by_side(
            between,
            L.Contractive(dense("rows"), 0.3, probes=1, seed=3),
            L.HessianTrace(dense("trace"), "l2(0.1)", probes=1, seed=3),
            L.VirtualAdversarial(dense("near"), 0.5, step=0.5, seed=3),
        )(x),
        drawn=True,
        sensitivity=5.0,
    ),
    "endpoints": Host(endpoint, endpoint=True),
    "attention": Host(attention),
    "penalize": Host(lines, whole=penalized),
    "penalizing": by_optimizer("Penalizing", list(STRENGTHS)),
    "proximal": by_optimizer("Proximal", ["constant", "ramp", "target"]),
}
