"""Layers that pass channels on: activations, normalization, pooling, sums, shapes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_penalties.compaction.activations import OPERATIONS, activated, works_by_entry
from keras_penalties.compaction.channels import (
    Channels,
    Values,
    array,
    same_in_all,
    varying,
)
from keras_penalties.compaction.rules import Call, Rule, follows, keep_unchanged
from keras_penalties.layers import ActivityPenalty, BiasUnit


@follows(
    layers.Identity,
    layers.ActivityRegularization,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
def same_channels(call: Call) -> Rule:
    """The output has the input's channels: at inference the layer does nothing."""
    return Rule(call.inputs[0])


@follows(
    *(
        getattr(layers, f"{kind}{n}D")
        for n in (1, 2, 3)
        for kind in (
            "MaxPooling",
            "AveragePooling",
            "GlobalMaxPooling",
            "GlobalAveragePooling",
            "UpSampling",
            "Cropping",
        )
    )
)
def pooling(call: Call) -> Rule:
    """Each channel is handled by itself, and a constant keeps its value."""
    first = getattr(call.layer, "data_format", None) == "channels_first"
    x = call.along(1 if first else -1)
    rank = len(call.output_shape)
    return Rule(Channels(x.ids, x.axis if rank > 2 else 1, x.constants))


@follows(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def zero_padding(call: Call) -> Rule:
    """Each channel is handled by itself. Only a channel of zeros stays constant."""
    x = pooling(call).output
    return Rule(x.with_constants(np.where(x.constants == 0, 0.0, np.nan)))


@follows(ActivityPenalty)
def activity_penalty(call: Call) -> Rule:
    """The output is the input. A running mean has an entry more than the channels."""
    if call.layer.momentum is None:
        return same_channels(call)
    x = call.along(-1)
    weight = call.groups.new(1)
    call.groups.keep(weight, "it is the last entry of a running mean")
    return Rule(x, {"running_mean": {0: np.concatenate([x.ids, weight])}})


@follows(BiasUnit)
def bias_unit(call: Call) -> Rule:
    """One channel more, whose value is one."""
    x = call.along(-1)
    one = call.groups.new(1)
    call.groups.keep(one, "it is a bias unit")
    constants = np.append(x.constants, 1.0)
    return Rule(Channels(np.concatenate([x.ids, one]), x.axis, constants))


@follows(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU)
def activation(call: Call) -> Rule:
    """Each entry is handled by itself."""
    if not works_by_entry(call.layer):
        return keep_unchanged(call, f"{call.layer.name} may mix channels")
    x = call.inputs[0]
    return Rule(x.with_constants(activated(call.layer, x.constants)))


@follows(layers.PReLU)
def prelu(call: Call) -> Rule:
    """Each entry is handled by itself, with a slope for each entry."""
    x = call.along(-1)
    alpha = array(call.layer.alpha)
    last = alpha.ndim - 1
    slopes = same_in_all(list(alpha.reshape(-1, alpha.shape[last])))
    kept = x.constants >= 0
    output = x.with_constants(np.where(kept, x.constants, slopes * x.constants))
    own = alpha.shape[last] == len(x.ids)  # or one slope for all channels
    return Rule(output, {"alpha": {last: x.ids}} if own else {})


@follows(layers.BatchNormalization)
def batch_normalization(call: Call) -> Rule:
    """`gamma·(x − mean) / √(variance + epsilon) + beta`, constant where gamma is 0."""
    layer, x = call.layer, call.along(call.layer.axis)
    count = len(x.ids)
    gamma = array(layer.gamma) if layer.scale else np.ones(count)
    beta = array(layer.beta) if layer.center else np.zeros(count)
    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    scale = gamma / np.sqrt(variance.astype("float64") + layer.epsilon)
    moved = np.where(gamma == 0, 0.0, x.constants - mean)
    weights = ("gamma", "beta", "moving_mean", "moving_variance")
    slices = {name: {0: x.ids} for name in weights}
    return Rule(x.with_constants(moved * scale + beta), slices)


@follows(
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)
def normalization(call: Call) -> Rule:
    """All channels are kept: over fewer channels the function would be another one."""
    return keep_unchanged(call, f"{call.layer.name} normalises over the channels")


@follows(layers.Flatten, layers.Reshape)
def reshape(call: Call) -> Rule:
    """Entry k of a sample belongs to channel k modulo the number of channels."""
    layer = call.layer
    first = getattr(layer, "data_format", None) == "channels_first"
    x = call.along(1 if first else -1)
    before, after = call.input_shape[1:], call.output_shape[1:]
    n, m = len(x.ids), after[-1]
    if m is None or None in (*before, *after):
        return keep_unchanged(call, f"the shape of {layer.name} is not known")
    place = np.arange(m)
    if m % n == 0:
        output = Channels(x.ids[place % n], len(after), x.constants[place % n])
    else:
        ids = call.groups.new(m)
        entries = np.arange(np.lcm(n, m))
        call.groups.unite(ids[entries % m], x.ids[entries % n])
        together = n % m == 0
        constants = same_in_all(list(x.constants.reshape(-1, m))) if together else None
        output = Channels(
            ids, len(after), varying(m) if constants is None else constants
        )
    sizes = {"target_shape": output.ids} if isinstance(layer, layers.Reshape) else {}
    return Rule(output, sizes=sizes)


@follows(layers.Concatenate, joins=True)
def concatenate(call: Call) -> Rule:
    """The channels of all inputs, or more positions of the same channels."""
    rank = len(call.output_shape)
    if len({x.axis for x in call.inputs}) > 1:
        return keep_unchanged(call, f"{call.layer.name} joins different axes")
    first = call.inputs[0]
    if call.layer.axis % rank != first.axis:
        return _united(call, same_in_all([x.constants for x in call.inputs]))
    ids = np.concatenate([x.ids for x in call.inputs])
    constants = np.concatenate([x.constants for x in call.inputs])
    return Rule(Channels(ids, first.axis, constants))


@follows(
    *(layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum),
    *("Add", "Subtract", "Maximum", "Minimum", *OPERATIONS),
    joins=True,
)
def elementwise(call: Call) -> Rule:
    """Channel by channel: the channels of all inputs and of the output form groups."""
    return _by_channel(call)


@follows(layers.Multiply, "Multiply", joins=True)
def product(call: Call) -> Rule:
    """Like other elementwise operations, and zero times anything is zero."""
    rule = _by_channel(call)
    if rule.unchanged:
        return rule
    count = len(rule.output.ids)
    zero = np.any(
        [x.constants == 0 for x in call.inputs if len(x.ids) == count], axis=0
    )
    return Rule(rule.output.with_constants(np.where(zero, 0.0, rule.output.constants)))


def _by_channel(call: Call) -> Rule:
    node = call.node
    tensors = {id(t) for t in node.input_tensors}
    given = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    others = [g for g in given if id(g) not in tensors]
    if any(getattr(g, "shape", ()) for g in others):
        return keep_unchanged(call, f"{call.layer.name} is called with an array")
    wide = [x for x in call.inputs if len(x.ids) > 1] or call.inputs
    ranks = {len(t.shape) for t in node.input_tensors}
    if len(ranks) > 1 or len({(len(x.ids), x.axis) for x in wide}) > 1:
        return keep_unchanged(call, f"{call.layer.name} joins different axes")
    return _united(call, _values(call))


def _united(call: Call, constants: Values) -> Rule:
    """Unite the channels of all inputs.

    A channel that is broadcast over the channels of another input is kept.
    """
    first = max(call.inputs, key=lambda x: len(x.ids))
    for x in call.inputs:
        if len(x.ids) == len(first.ids):
            call.groups.unite(x.ids, first.ids)
        else:
            call.groups.keep(
                x.ids, f"{call.layer.name} broadcasts it over other channels"
            )
    return Rule(first.with_constants(constants))


def _values(call: Call) -> Values:
    """The operation's result for constants, varying where an input varies."""
    node, count = call.node, max(len(x.ids) for x in call.inputs)
    rows: dict[int, Any] = {}
    varies = np.zeros(count, dtype=bool)
    for tensor, x in zip(node.input_tensors, call.inputs, strict=True):
        varies = varies | np.isnan(x.constants)
        row = np.nan_to_num(x.constants)[None]
        rows[id(tensor)] = ops.convert_to_tensor(row, "float32")
    args, kwargs = keras.tree.map_structure(
        lambda a: rows.get(id(a), a), (node.arguments.args, node.arguments.kwargs)
    )
    values = ops.convert_to_numpy(call.layer.call(*args, **kwargs))[0].astype("float64")
    return np.where(varies | ~np.isfinite(values), np.nan, values)
