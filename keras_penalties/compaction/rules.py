"""What a layer kind does to channels: one function each, found by the layer's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_penalties.compaction.channels import Book, Channels, Ids, Values, varying

Slices = Mapping[str, Mapping[int, Ids]]


@dataclass(frozen=True)
class Read:
    """A layer that mixes its input's channels linearly: how one can be left out."""

    ids: Ids
    outputs: Ids
    uses: Any
    """Whether an output has a weight other than zero for an input: (in, out)."""
    totals: Any
    """What an output gets from an input that is one everywhere: (in, out)."""
    constants: Values
    into_bias: bool
    """Whether that holds at every position, so that a bias can say the same."""
    axis: int | None
    """The kernel's axis of inputs; None if a row of it can't be added to another."""


@dataclass(frozen=True)
class Rule:
    """What one call of a layer says about channels, and how the layer gets smaller."""

    output: Channels
    slices: Slices = field(default_factory=dict)
    """Which channels the layer's weights have along which axes."""
    sizes: Mapping[str, Ids] = field(default_factory=dict)
    """Which arguments in the layer's config count which channels."""
    read: Read | None = None
    multiplies: Mapping[str, int] = field(default_factory=dict)
    """At how many positions each weight multiplies, for one sample."""
    whole: str | None = None
    """Why the layer is kept as it is."""


class Call:
    """One call of a layer in a graph, as its rule sees it."""

    def __init__(
        self, layer: Any, node: Any, inputs: list[Channels], book: Book
    ) -> None:
        self.layer = layer
        self.node = node
        self.inputs = inputs
        self.book = book

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
        return Call(layer, self.node, self.inputs, self.book)

    def along(self, axis: int) -> Channels:
        """The only input's channels along an axis; all stay if it has others."""
        (x,) = self.inputs
        if x.axis == axis % len(self.input_shape):
            return x
        self.book.keep(x.ids, f"{self.layer.name} reads another axis")
        return whole_tensor(self.book, self.input_shape, axis, "an axis not followed")

    def positions(self, shape: tuple[int | None, ...], axis: int) -> int:
        """How many positions a tensor has; an axis of unknown length counts as one."""
        free = [n for i, n in enumerate(shape) if i not in (0, axis % len(shape))]
        return int(np.prod([n or 1 for n in free], dtype=int))


def whole_tensor(
    book: Book, shape: tuple[int | None, ...], axis: int, why: str
) -> Channels:
    """The channels of a tensor that is kept whole; none if it is not known how many."""
    count = (shape[axis] if len(shape) > 1 else 0) or 0
    ids = book.fresh(count)
    book.keep(ids, why)
    return Channels(ids, axis % max(len(shape), 1), varying(count))


def keep_whole(call: Call, why: str) -> Rule:
    """Nothing that this call reads or gives out changes."""
    for x in call.inputs:
        call.book.keep(x.ids, why)
    return Rule(whole_tensor(call.book, call.output_shape, -1, why), whole=why)


Handler = Callable[[Call], Rule]
_HANDLERS: dict[Any, tuple[Handler, bool]] = {}


def follows(*kinds: Any, joins: bool = False) -> Callable[[Handler], Handler]:
    """Let a function say what layers of these classes do to channels.

    An operation of `keras.ops` is known by its class's name. A subclass is not its
    base: it may do anything in `call`.

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
    """What this call does to channels; all are kept if that is not known."""
    layer = call.layer
    known = _HANDLERS.get(_kind(layer))
    if known is None:
        return keep_whole(call, f"{type(layer).__name__} is not followed")
    handler, joins = known
    if not joins and len(call.inputs) != 1:
        return keep_whole(call, f"{layer.name} is called with several tensors")
    if any(len(x.ids) == 0 for x in call.inputs) and joins:
        return keep_whole(call, f"{layer.name} has a shape that is not known")
    if why := _why_not(layer):
        return keep_whole(call, f"{layer.name} {why}")
    return handler(call)


def _kind(operation: Any) -> Any:
    if isinstance(operation, keras.layers.Layer):
        return type(operation)
    own = type(operation).__module__.startswith("keras.")
    return type(operation).__name__ if own else type(operation)


def _why_not(layer: Any) -> str | None:
    """What in a layer of a known kind hinders that its weights are cut."""
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

    Numbers with a point make one, lists in a list, and the `block` of a penalty.
    """
    if isinstance(config, dict):
        if config.get("class_name") in ("__numpy__", "__tensor__"):
            return True
        return bool(config.get("block")) or any(map(_holds_array, config.values()))
    if isinstance(config, list | tuple):
        return any(isinstance(v, float | list) or _holds_array(v) for v in config)
    return isinstance(config, np.ndarray) and config.ndim > 0
