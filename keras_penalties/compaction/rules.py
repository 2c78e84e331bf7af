"""What each kind of layer does to channels: one function for each class of layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_penalties.compaction.channels import (
    ChannelGroups,
    Channels,
    Ids,
    Values,
    varying,
)

Slices = Mapping[str, Mapping[int, Ids]]


@dataclass(frozen=True)
class Reader:
    """A layer that mixes its input channels linearly, and how one can be left out."""

    ids: Ids
    """The input channels."""
    outputs: Ids
    """The output channels."""
    uses: npt.NDArray[np.bool_]
    """Whether an output has a nonzero weight for an input, of shape (in, out)."""
    totals: npt.NDArray[Any]
    """The value that an input of one adds to an output, of shape (in, out)."""
    constants: Values
    """The constants of the input channels."""
    folds_into_bias: bool
    """Whether a constant input adds the same value at every position, so that the bias
    can take over that value."""
    axis: int | None
    """The kernel's axis of inputs. None if one row can't be added to another."""


@dataclass(frozen=True)
class Rule:
    """What one call of a layer does to channels, and how the layer is made smaller."""

    output: Channels
    slices: Slices = field(default_factory=dict)
    """For each weight of the layer, by name, its axes that have channels, and which."""
    sizes: Mapping[str, Ids] = field(default_factory=dict)
    """For each argument in the layer's config that counts channels, which ones."""
    reader: Reader | None = None
    """How the layer reads its input channels. None if it does not mix them."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """At how many positions each kernel is multiplied, for one sample."""
    unchanged: str | None = None
    """Why the layer is kept as it is. None if the layer may be made smaller."""


class Call:
    """One call of a layer or operation in a model's graph."""

    def __init__(
        self, layer: Any, node: Any, inputs: list[Channels], groups: ChannelGroups
    ) -> None:
        self.layer = layer
        self.node = node
        self.inputs = inputs
        self.groups = groups

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The first input's shape."""
        shape: tuple[int | None, ...] = self.node.input_tensors[0].shape
        return shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The first output's shape."""
        shape: tuple[int | None, ...] = self.node.outputs[0].shape
        return shape

    def of(self, layer: Any) -> Call:
        """The same call, seen by a layer inside this one."""
        return Call(layer, self.node, self.inputs, self.groups)

    def along(self, axis: int) -> Channels:
        """The channels of the only input along an axis.

        If the input's channels lie along another axis, all of them are kept.
        """
        (x,) = self.inputs
        if x.axis == axis % len(self.input_shape):
            return x
        self.groups.keep(x.ids, f"{self.layer.name} works along another axis")
        return kept_tensor(
            self.groups,
            self.input_shape,
            axis,
            "it lies along another axis than the channels before it",
        )

    def positions(self, shape: tuple[int | None, ...], axis: int) -> int:
        """How many positions a tensor has. An axis of unknown length counts as one."""
        free = [n for i, n in enumerate(shape) if i not in (0, axis % len(shape))]
        return int(np.prod([n or 1 for n in free], dtype=int))


def kept_tensor(
    groups: ChannelGroups, shape: tuple[int | None, ...], axis: int, why: str
) -> Channels:
    """New channels that all stay, for a tensor. None if their number is unknown."""
    count = (shape[axis] if len(shape) > 1 else 0) or 0
    ids = groups.new(count)
    groups.keep(ids, why)
    return Channels(ids, axis % max(len(shape), 1), varying(count))


def keep_unchanged(call: Call, why: str) -> Rule:
    """The rule of a call whose inputs and output keep all channels."""
    for x in call.inputs:
        call.groups.keep(x.ids, why)
    return Rule(kept_tensor(call.groups, call.output_shape, -1, why), unchanged=why)


Handler = Callable[[Call], Rule]
_HANDLERS: dict[Any, tuple[Handler, bool]] = {}


def follows(*kinds: Any, joins: bool = False) -> Callable[[Handler], Handler]:
    """Register a function that says what layers of these classes do to channels.

    An operation of `keras.ops` is given by its class's name. A subclass of a known
    class is not known, as its `call` may do anything.

    Args:
        kinds: Layer classes.
        joins: Whether the layer may have several inputs. Default False.

    Example:
        >>> import keras
        >>> from keras_penalties.compaction import follows
        >>> from keras_penalties.compaction.shapes import same_channels
        >>> class Twice(keras.layers.Layer):
        ...     def call(self, x):
        ...         return x + x
        >>> @follows(Twice)
        ... def twice(call):
        ...     rule = same_channels(call)
        ...     return Rule(rule.output.with_constants(2 * rule.output.constants))
    """

    def add(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(kinds, (handler, joins)))
        return handler

    return add


def rule_of(call: Call) -> Rule:
    """What this call does to channels. All channels are kept if that is not known."""
    layer = call.layer
    known = _HANDLERS.get(_kind(layer))
    if known is None:
        return keep_unchanged(call, f"compact does not know {type(layer).__name__}")
    handler, joins = known
    if not joins and len(call.inputs) != 1:
        return keep_unchanged(call, f"{layer.name} is called with several tensors")
    if any(len(x.ids) == 0 for x in call.inputs) and joins:
        return keep_unchanged(call, f"the shape of {layer.name} is not known")
    if why := _why_not(layer):
        return keep_unchanged(call, f"{layer.name} {why}")
    return handler(call)


def _kind(operation: Any) -> Any:
    if isinstance(operation, keras.layers.Layer):
        return type(operation)
    own = type(operation).__module__.startswith("keras.")
    return type(operation).__name__ if own else type(operation)


def _why_not(layer: Any) -> str | None:
    """Why the weights of this layer can't be made smaller, if its class can."""
    if not isinstance(layer, keras.layers.Layer):
        return None
    if getattr(layer, "lora_enabled", False):
        return "has LoRA weights"
    if getattr(layer, "quantization_mode", None):
        return "is quantized"
    if layer.weights and _holds_array(layer.get_config()):
        return "has an array in its config, such as a penalty's weights"
    return None


def _holds_array(config: Any) -> bool:
    """Whether a config has an array in it, which may have the shape of a weight.

    A list of floats is an array, and so are a list of lists and a penalty's `block`.
    """
    if isinstance(config, dict):
        if config.get("class_name") in ("__numpy__", "__tensor__"):
            return True
        return bool(config.get("block")) or any(map(_holds_array, config.values()))
    if isinstance(config, list | tuple):
        return any(isinstance(v, float | list) or _holds_array(v) for v in config)
    return isinstance(config, np.ndarray) and config.ndim > 0
