"""What is not drawn, and why: limits of Keras', or of what can be computed twice.

The one list. Each entry says in its name what is left out; its function says which
descriptions that is; its docstring says why.
"""

from __future__ import annotations

from collections.abc import Callable

from campaign.describe import Call, Graph, Model

Limit = Callable[[Model, str], bool]
LIMITS: list[Limit] = []


def limit(function: Limit) -> Limit:
    """Note a limit."""
    LIMITS.append(function)
    return function


def reason(model: Model, backend: str) -> str | None:
    """Why a case is not drawn on a backend, or None."""
    for function in LIMITS:
        if function(model, backend):
            return f"{function.__name__}: {function.__doc__}"
    return None


@limit
def activity_slots_on_jax(model: Model, backend: str) -> bool:
    """Keras on JAX finds a layer's losses by the `id()` of tensors that are freed, and
    counts the last call of a shared layer only (`keras-facts.md`, "add_loss"). The
    package cures both for its own layers; Keras' own slot keeps both faults."""
    layers = model.graph.everywhere()
    return backend == "jax" and any("activity" in x.slots for x in layers)


@limit
def activity_slots_in_mixed_precision(model: Model, backend: str) -> bool:
    """Keras' own activity slot fails where losses of two dtypes are added."""
    mixed = model.fit.policy != "float32"
    return mixed and any("activity" in x.slots for x in model.graph.everywhere())


@limit
def torch_compile(model: Model, backend: str) -> bool:
    """`jit_compile=True` on torch is `torch.compile`, which takes a minute a model."""
    return backend == "torch" and model.fit.jit is True


@limit
def steps_per_execution_on_torch(model: Model, backend: str) -> bool:
    """Keras on torch refuses `steps_per_execution` above 1."""
    return backend == "torch" and model.fit.steps > 1


@limit
def states_whose_calls_have_no_order(model: Model, backend: str) -> bool:
    """Keras chooses in which order a functional model runs two calls of a layer that
    do not follow from each other. A batch normalization and a running mean come out
    differently."""
    graphs = [model.graph, *(x.inner for x in model.graph.everywhere() if x.inner)]
    return any(map(_unordered, graphs))


@limit
def lazy_outputs_of_an_lstm_by_xla(model: Model, backend: str) -> bool:
    """XLA in TensorFlow has no gradient for a branch, as `Lazy` has it, on the outputs
    of an LSTM where the last batch is smaller ("Dynamic degenerated dimension")."""
    fit = model.fit
    compiled = backend == "tensorflow" and fit.jit is True and fit.samples % fit.batch
    return bool(compiled) and any(
        x.kind == "lstm" and any(p.strength.kind == "lazy" for p in x.outputs)
        for x in model.graph.everywhere()
    )


def _unordered(graph: Graph) -> bool:
    before: dict[str, set[str]] = {x.name: set() for x in graph.inputs}
    calls: dict[str, list[Call]] = {}
    for call in graph.calls:
        found = set().union(*(before[name] for name in call.inputs))
        layer, earlier = graph.layer(call.layer), calls.setdefault(call.layer, [])
        moves = layer.kind == "batch_normalization" or layer.args.get("momentum")
        if moves and any(x.output not in found for x in earlier):
            return True
        before[call.output] = {*found, call.output}
        earlier.append(call)
    return False


NOT_DRAWN = {
    "Dropout and noise": "Their random numbers can't be computed a second time.",
    "GradientPenalty of two batches": "Its places are random.",
    "attention whose queries are masked": "All scores of a masked query are hidden. "
    "What Keras then gives differs between backends: the mean value, zeros or NaN.",
    "sequences that are masked as a whole": "GlobalAveragePooling1D divides by zero.",
    "weights of shape (batch,) for a sequence": "Keras broadcasts them along time "
    "where the lengths agree. All weights of sequences are drawn as (batch, time).",
    "a subclassed model that does not hand `training` on": "Keras on JAX does not "
    "hand it on either: batch normalization stays as in an evaluation too.",
    "the logs of a subclassed model's single outputs": "Keras names outputs without "
    "names by their losses, so that two losses of a kind share one log.",
}
"""What the drawing never makes, and why."""
