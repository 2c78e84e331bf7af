"""The whole objective of a model, written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_penalties import compat
from keras_penalties.explain.parts import Part, decay_part, loss_part, term_part
from keras_penalties.tables import html_lines, html_table, text_table
from keras_penalties.terms import Terms, terms

_OPTIMIZER = "by the optimizer, not in `loss`:"


@dataclass(frozen=True)
class Objective:
    """What a model minimises, part by part. It prints as text, and as a table in HTML.

    The sum of `loss`, computed by hand on a batch, is what `evaluate` calls loss.
    """

    loss: tuple[Part, ...]
    """The summands of `loss`: the data losses, then the terms."""
    optimizer: tuple[Part, ...]
    """What the optimizer applies beside `loss`."""
    notes: tuple[str, ...]
    """What else is to be known, and what can't be known."""

    def __str__(self) -> str:
        parts = (*self.loss, *self.optimizer)
        rows = [("  +" if i else "", *part.cells()) for i, part in enumerate(parts)]
        lines = text_table(rows).split("\n") if rows else []
        if self.optimizer:
            lines.insert(len(self.loss), _OPTIMIZER)
        return "\n".join(["loss =", *lines, *self.notes])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        head = ("loss =", "where", "name")
        found = [html_table([head, *(part.cells() for part in self.loss)])]
        if self.optimizer:
            head = (_OPTIMIZER, "where", "name")
            found.append(html_table([head, *(p.cells() for p in self.optimizer)]))
        return "\n".join([*found, html_lines(self.notes)])

    def latex(self) -> str:
        """The sum for LaTeX's math mode, a line for each part."""
        begin, end = r"\begin{aligned}", r"\end{aligned}"
        lines = [
            rf"{'+' if i else 'J ='} {{}}& {part.latex()}"
            for i, part in enumerate((*self.loss, *self.optimizer))
        ]
        return "\n".join([begin, " \\\\\n".join(lines), end])


def objective(model: keras.Model) -> Objective:
    """The whole objective of a model: data losses, terms, and what the optimizer adds.

    It has the losses of `compile` with their weights, every term of `terms(model)` with
    its strength now, Keras' own regularizers among them, and, beside `loss`, the terms
    of `Proximal`, the weight decay of the optimizer and Keras' constraints. A line says
    what can't be known: a layer or a model with a `call` of its own, or a function in a
    `Lambda`, may add a loss that nobody can see.

    Args:
        model: Any built Keras model.

    Returns:
        An `Objective`, which prints as text, shows as a table in a notebook, and has
        `latex()`.

    Raises:
        ValueError: if `model` is no layer or is not built yet.

    Example:
        >>> import keras, keras_penalties as kp
        >>> model = kp.models.SparseAutoencoder()
        >>> model.build((None, 4))
        >>> model.compile("adam", "half_sum_squared_error")
        >>> lines = str(kp.objective(model)).splitlines()
        >>> print(*[" ".join(line.split()) for line in lines[:5]], sep="\\n")
        loss =
        mean[½·Σ(y_true − y_pred)²] half_sum_squared_error
        + 5e-05 · Σx² x = encoder/kernel encoder_kernel_l2
        + 3 · Σ_units KL(rate ‖ mean) x = code, rate = 0.1 code_kl_sparsity
        + 5e-05 · Σx² x = decoder/kernel decoder_kernel_l2
    """
    found = terms(model)
    compiled = getattr(model, "compiled", False)
    losses = compat.compiled_losses(model) if compiled else []
    data = tuple(loss_part(loss) for loss in losses or ())
    loss = (*data, *(term_part(t) for t in found if t.in_loss))
    applied = [term_part(t) for t in found if t.acts and t.host == "optimizer"]
    optimizer = (*applied, *_decays(model), *_constraints(model))
    notes = [*_meaning(loss), *_uncounted(found), *_unknown(model, losses, loss)]
    return Objective(loss, optimizer, tuple(notes))


def _decays(model: Any) -> Iterator[Part]:
    optimizer = getattr(model, "optimizer", None)
    for one in [] if optimizer is None else compat.flat_optimizers(optimizer):
        weights = compat.decayed(one, model.trainable_variables)
        if weights:
            whole = len(weights) == len(model.trainable_variables)
            paths = ", ".join(w.path for w in weights)
            where = "each trained weight" if whole else paths
            yield decay_part(float(one.weight_decay), where, f"decoupled, {one.name}")


def _constraints(model: Any) -> Iterator[Part]:
    for weight in model.trainable_variables:
        if weight.constraint is not None:
            name = type(weight.constraint).__name__
            yield Part(
                name="constraint",
                formula=f"{name}(x)",
                where=(("x", weight.path),),
                constraint=True,
                known=False,
            )


def _meaning(loss: tuple[Part, ...]) -> Iterator[str]:
    """What the letters of the sum are."""
    if any(part.reduction for part in loss):
        yield (
            "mean and sum: over the values of a batch, each times its `sample_weight` "
            "if there is one, without those that a mask hides."
        )
    if any(part.per_sample for part in loss):
        yield (
            "n: the samples of the batch. In the terms of layers of keras_penalties "
            "what a mask hides is left out of x and of n; in Keras' slots it is not."
        )


def _uncounted(found: Terms) -> Iterator[str]:
    frozen = [t.name for t in found if not t.acts]
    if frozen:
        yield f"not counted, since the weight is frozen: {', '.join(frozen)}."


def _unknown(model: Any, losses: Any, loss: tuple[Part, ...]) -> Iterator[str]:
    """What nobody can read off a model."""
    if not getattr(model, "compiled", False):
        yield "not known: the data loss, since the model is not compiled."
    if losses is None:
        yield (
            "not known: which loss belongs to which output. Keras finds out in the "
            "first batch: fit or evaluate the model once."
        )
    for method in ("compute_loss", "train_step", "test_step"):
        owner = getattr(type(model), method, None)
        if owner is not None and not _known(owner):
            yield f"not known: what {type(model).__name__}.{method} makes of the loss."
    if names := [part.name for part in loss if not part.known]:
        yield f"not known: the formulas of {', '.join(names)}."
    if foreign := [_described(x) for x in compat.flat_layers(model) if _may_add(x)]:
        yield (
            "not known: whether these add losses in code of their own: "
            f"{', '.join(foreign)}."
        )
    if several := sorted(_called_often(model)):
        yield (
            "called in several places, so that the terms on what they give out count "
            f"at each: {', '.join(several)}."
        )


def _may_add(layer: Any) -> bool:
    """Whether a layer runs code that is neither Keras' nor ours."""
    if isinstance(layer, keras.layers.Lambda):
        return not _known(layer.function)
    return not _known(type(layer).call)


def _known(function: Any) -> bool:
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    return package in ("keras", "keras_penalties")


def _described(layer: Any) -> str:
    return f"{type(layer).__name__} '{layer.name}'"


def _called_often(model: Any) -> set[str]:
    """The layers with a term on what they give out that stand in a graph repeatedly."""
    outputs = [t for t in terms(model) if t.in_loss and t.weight is None]
    owners = {id(t.owner) for t in outputs}
    named = {t.target.rpartition("/")[2] for t in outputs}
    found = set()
    for part in compat.flat_layers(model):
        if isinstance(part, keras.Model) and (graph := compat.graph(part)):
            calls = Counter(id(node.operation) for node in graph[1])
            often = [n.operation for n in graph[1] if calls[id(n.operation)] > 1]
            found |= {o.name for o in often if id(o) in owners or o.name in named}
    return found
