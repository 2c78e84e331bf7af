"""How sparse a model is, and how large it would be after `compact`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_penalties import checks, compat
from keras_penalties.compaction.channels import array
from keras_penalties.compaction.plan import Plan
from keras_penalties.tables import html_lines, html_table, text_table


@dataclass(frozen=True)
class WeightSparsity:
    """How many zeros one weight has."""

    path: str
    shape: tuple[int, ...]
    zeros: int
    """The number of entries that are zero."""
    zero_slices: tuple[int, ...]
    """For each axis the number of slices along it that are all zero."""

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sparsity:
    """The zeros of a model's weights, and its size before and after `compact`.

    Prints as a table. The sizes after `compact`, and the FLOPs, are None for a model
    that `compact` refuses.
    """

    weights: tuple[WeightSparsity, ...]
    parameters: int
    """The number of entries of all weights, also of those that are not trained."""
    compact_parameters: int | None
    flops: int | None
    """Two for each multiplication by an entry of a kernel, for one sample."""
    compact_flops: int | None
    not_counted: tuple[str, ...]
    """The layers with weights whose FLOPs are not known and not part of the sums."""

    def __str__(self) -> str:
        return "\n".join([text_table(self._rows()), *self._sizes()])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return f"{html_table(self._rows())}\n{html_lines(self._sizes())}"

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("weight", "shape", "zeros", "zero slices, axis by axis")
        return [head, *(_cells(w) for w in self.weights)]

    def _sizes(self) -> list[str]:
        lines = [f"parameters: {self.parameters:,}"]
        if self.compact_parameters is not None:
            lines[-1] += f", compact {self.compact_parameters:,}"
            lines.append(f"FLOPs: {self.flops:,}, compact {self.compact_flops:,}")
        if self.not_counted:
            lines.append(f"FLOPs without {', '.join(self.not_counted)}")
        return lines


def _cells(weight: WeightSparsity) -> tuple[str, ...]:
    slices = zip(weight.zero_slices, weight.shape, strict=True)
    return (
        weight.path,
        str(weight.shape),
        f"{weight.zeros / max(weight.size, 1):.1%}",
        ", ".join(f"{zero}/{n}" for zero, n in slices),
    )


def sparsity(model: keras.Model) -> Sparsity:
    """Count the zeros of each weight, by entry and by slice, and what `compact` saves.

    FLOPs are two for each multiplication by an entry of a kernel, for one sample, in
    the layers that `compact` knows. An axis of unknown length counts as one.

    Args:
        model: Any built Keras model. FLOPs, and the sizes after `compact`, are known
            for Functional and Sequential models only.

    Returns:
        A `Sparsity`, which prints as a table.

    Raises:
        ValueError: if `model` is not a built model or layer.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> layers = [keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")]
        >>> model = keras.Sequential([keras.Input((2,)), *layers], name="m")
        >>> kernel = layers[0].kernel.assign(np.array([[1.0, 0, 2], [3, 0, 0]]))
        >>> print(kp.sparsity(model))
        weight      shape   zeros  zero slices, axis by axis
        m/a/kernel  (2, 3)  50.0%  0/2, 1/3
        m/b/kernel  (3, 1)  0.0%   0/3, 0/1
        parameters: 13, compact 9
        FLOPs: 18, compact 12
    """
    checks.instance("model", model, keras.layers.Layer)
    if not model.built:
        checks.refuse(
            "model", "a built model. Call the model, fit it or call its `build`", model
        )
    weights = tuple(
        _weight(v.path, array(v)) for v in model.weights if len(v.shape) > 1
    )
    parameters = sum(math.prod(v.shape) for v in model.weights)
    if compat.graph(model) is None:
        return Sparsity(weights, parameters, None, None, None, ())
    plan = Plan(model)
    saved = flops = compact_flops = 0
    for traced in plan.trace.layers.values():
        for name, weight in traced.weights.items():
            before, after = (
                math.prod(weight.shape),
                math.prod(plan.kept.shape(traced, name)),
            )
            saved += before - after
            flops += 2 * before * traced.positions.get(name, 0)
            compact_flops += 2 * after * traced.positions.get(name, 0)
    unknown = tuple(row.layer for row in plan.rows if row.unchanged)
    return Sparsity(
        weights, parameters, parameters - saved, flops, compact_flops, unknown
    )


def _weight(path: str, value: npt.NDArray[Any]) -> WeightSparsity:
    used = value != 0
    axes = range(value.ndim)
    others = [tuple(a for a in axes if a != axis) for axis in axes]
    slices = tuple(int(np.sum(~used.any(axis=other))) for other in others)
    return WeightSparsity(path, value.shape, int(np.sum(~used)), slices)
