"""Layers with a kernel, which mix their input channels and make new ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from keras import layers

from keras_penalties.compaction.activations import activated, works_by_entry
from keras_penalties.compaction.channels import (
    Channels,
    Ids,
    Values,
    array,
    same_in_all,
    varying,
)
from keras_penalties.compaction.rules import (
    Call,
    Reader,
    Rule,
    Slices,
    follows,
    keep_unchanged,
    rule_of,
)
from keras_penalties.layers import Penalized


@follows(layers.Dense)
def dense(call: Call) -> Rule:
    """`units` channels from a kernel (in, out)."""
    kernel = array(call.layer.kernel)[None]
    return _linear(call, -1, kernel, size="units", axes=(0, 1), everywhere=True)


@follows(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(call: Call) -> Rule:
    """`filters` channels from a kernel (..., in, out)."""
    layer = call.layer
    if layer.groups != 1:
        return keep_unchanged(call, f"{layer.name} has groups")
    kernel = array(layer.kernel)
    rank = kernel.ndim
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    axes = (rank - 2, rank - 1)
    everywhere = not _pads(layer)
    return _linear(call, _axis(layer), taps, "filters", axes, everywhere)


@follows(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_convolution(call: Call) -> Rule:
    """`filters` channels from a kernel (..., out, in). No output is constant."""
    kernel = array(call.layer.kernel)
    rank = kernel.ndim
    taps = kernel.reshape(-1, *kernel.shape[-2:]).swapaxes(1, 2)
    axes = (rank - 1, rank - 2)
    return _linear(call, _axis(call.layer), taps, "filters", axes, everywhere=False)


@follows(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_convolution(call: Call) -> Rule:
    """`filters` channels from kernels (..., in, many) and (1, in·many, out)."""
    layer = call.layer
    depth, point = array(layer.depthwise_kernel), array(layer.pointwise_kernel)
    inputs, many = depth.shape[-2:]
    by_input = point.reshape(inputs, many, -1)
    taps = np.einsum("tim,imo->tio", depth.reshape(-1, inputs, many), by_input)
    x, outputs = call.along(_axis(layer)), call.groups.new(point.shape[-1])
    rank = depth.ndim
    slices = {
        "depthwise_kernel": {rank - 2: x.ids},
        "pointwise_kernel": {rank - 2: np.repeat(x.ids, many), rank - 1: outputs},
        "bias": {0: outputs},
    }
    return _mixed(call, x, outputs, taps, slices, "filters", not _pads(layer), None)


@follows(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_convolution(call: Call) -> Rule:
    """Each input channel makes `depth_multiplier` output channels, of its own group."""
    layer = call.layer
    x = call.along(_axis(layer))
    kernel = array(layer.kernel)
    many = kernel.shape[-1]
    ids = np.repeat(x.ids, many)
    taps = kernel.reshape(-1, len(ids))
    inputs = np.repeat(x.constants, many)
    unread = ~taps.any(axis=0)
    inputs = np.where(unread, 0.0, inputs)
    if _pads(layer):
        inputs = np.where(inputs == 0, 0.0, np.nan)
    constants = inputs * taps.sum(axis=0) + _bias(layer, len(ids))
    axis = x.axis
    positions = call.positions(call.output_shape, axis)
    return Rule(
        Channels(ids, axis, _after(call, constants, ids)),
        slices={"kernel": {kernel.ndim - 2: x.ids}, "bias": {0: ids}},
        positions={"kernel": positions},
    )


@follows(layers.Embedding)
def embedding(call: Call) -> Rule:
    """`output_dim` channels from a table. The input is indices."""
    (x,) = call.inputs
    call.groups.keep(x.ids, "it is an input of indices")
    table = array(call.layer.embeddings)
    outputs = call.groups.new(table.shape[1])
    constants = same_in_all(list(table.astype("float64")))
    axis = len(call.output_shape) - 1
    slices = {"embeddings": {1: outputs}}
    return Rule(Channels(outputs, axis, constants), slices, {"output_dim": outputs})


@follows(Penalized)
def penalized(call: Call) -> Rule:
    """The rule of the layer inside."""
    return rule_of(call.of(call.layer.layer))


def _linear(
    call: Call,
    axis: int,
    taps: npt.NDArray[Any],
    size: str,
    axes: tuple[int, int],
    everywhere: bool,
) -> Rule:
    """The rule of a layer with one kernel. `axes` are those of its inputs and outputs.

    `everywhere` says whether the layer computes the same sum at every position.
    """
    x, outputs = call.along(axis), call.groups.new(taps.shape[-1])
    slices = {"kernel": {axes[0]: x.ids, axes[1]: outputs}, "bias": {0: outputs}}
    return _mixed(call, x, outputs, taps, slices, size, everywhere, axes[0])


def _mixed(
    call: Call,
    x: Channels,
    outputs: Ids,
    taps: npt.NDArray[Any],
    slices: Slices,
    size: str,
    everywhere: bool,
    axis: int | None,
) -> Rule:
    """The rule of a layer that sums over `taps`, adds a bias and applies an activation.

    `taps` has the shape (positions in the kernel, in, out).
    """
    layer = call.layer
    uses, totals = np.asarray(taps.any(axis=0)), taps.sum(axis=0)
    reader = Reader(
        ids=x.ids,
        outputs=outputs,
        uses=uses,
        totals=totals,
        constants=x.constants,
        folds_into_bias=everywhere and layer.use_bias,
        axis=axis,
    )
    known = x.constants == 0 if not everywhere else ~np.isnan(x.constants)
    moved = np.flatnonzero(known & (x.constants != 0))
    constants = x.constants[moved] @ totals[moved].astype("float64")
    constants = constants + _bias(layer, len(outputs))
    constants[uses[~known].any(axis=0)] = np.nan
    # A transposed convolution multiplies its kernel at each position of its input.
    transposed = "Transpose" in type(layer).__name__
    shape = call.input_shape if transposed else call.output_shape
    positions = call.positions(shape, x.axis)
    return Rule(
        Channels(outputs, x.axis, _after(call, constants, outputs)),
        slices=slices,
        sizes={size: outputs},
        reader=reader,
        positions={name: positions for name in slices if name != "bias"},
    )


def _after(call: Call, constants: Values, ids: Ids) -> Values:
    """The constants after the layer's activation.

    If the activation may mix channels, all channels are kept.
    """
    activation = call.layer.activation
    if works_by_entry(activation):
        return activated(activation, constants)
    call.groups.keep(ids, f"{call.layer.name}'s activation may mix channels")
    return varying(len(ids))


def _bias(layer: Any, count: int) -> Values:
    bias = array(layer.bias) if layer.use_bias else np.zeros(count)
    return np.asarray(bias, dtype="float64")


def _axis(layer: Any) -> int:
    return 1 if layer.data_format == "channels_first" else -1


def _pads(layer: Any) -> bool:
    """Whether the layer pads its input with zeros."""
    return layer.padding != "valid" and any(n != 1 for n in layer.kernel_size)
