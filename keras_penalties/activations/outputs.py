"""The outputs of one layer, read while its model runs."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.activations.datasets import Inputs
from keras_penalties.autodiff import without_gradients
from keras_penalties.compiling import compiled
from keras_penalties.hosting.addresses import fits, layers_by_address
from keras_penalties.typing import Tensor

Array: TypeAlias = npt.NDArray[Any]
Read: TypeAlias = Callable[[Any], tuple[Array, Array | None]]
"""From inputs to a layer's output and the mask of that output."""

_turn = threading.RLock()


class LayerOutputs:
    """The rows of features that a layer gives for a dataset, batch by batch.

    Args:
        model: A built model.
        layer: A layer in the model, or the layer's address.
        inputs: What the model runs on.
        call: Which call of the layer, of several.
        axis: The axis of the features.
        rows_per_sample: How many rows of each sample to draw. None: all.
        dtype: Of the rows.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: Any,
        inputs: Inputs,
        *,
        call: int | None,
        axis: int,
        rows_per_sample: int | None,
        dtype: str,
    ) -> None:
        checks.instance("model", model, keras.Model)
        if not model.built:
            checks.refuse(
                "model", "a built model: call it, fit it or `build` it", model
            )
        self.layer = found_layer(model, layer)
        self.inputs, self.axis, self.dtype = inputs, axis, dtype
        self.rows_per_sample = rows_per_sample
        self._read = _reader(_upstream(model, self.layer), self.layer, call, dtype)
        first = next(inputs.batches(), None)
        if first is None:
            checks.refuse("dataset", "at least one batch", inputs.dataset)
        output, mask = self._read(first)
        self._check(output)
        self._masked = mask is not None
        self.features = int(output.shape[axis])

    def _check(self, output: Array) -> None:
        if (
            output.ndim < 2
            or not -output.ndim < self.axis < output.ndim
            or (self.axis == 0)
        ):
            checks.refuse(
                "axis",
                "an axis of the layer's output other than the first one, which is the "
                f"batch. The output has the shape {output.shape}",
                self.axis,
            )
        first = getattr(self.layer, "data_format", None) == "channels_first"
        if first and self.axis % output.ndim != 1:
            checks.refuse(
                "axis",
                "1, since the features of the layer, which has "
                '`data_format="channels_first"`, are on axis 1',
                self.axis,
            )

    def rows(self, rng: np.random.Generator, shuffled: bool) -> Iterator[Array]:
        """The rows of each batch of inputs; samples of arrays may be shuffled."""
        for x in self.inputs.batches(rng if shuffled else None):
            yield self._rows(x, rng)

    def _rows(self, x: Any, rng: np.random.Generator) -> Array:
        output, mask = self._read(x)
        output = np.moveaxis(output, self.axis, -1)
        if mask is None and self.rows_per_sample is None:
            return output.reshape(-1, self.features)
        shape = output.shape[:-1]
        if mask is None:
            mask = np.ones(shape, bool)
        mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
        chosen = np.broadcast_to(mask, shape).reshape(shape[0], -1)
        if self.rows_per_sample is not None:
            chosen = _drawn(chosen, self.rows_per_sample, rng)
        return output.reshape(*chosen.shape, -1)[chosen]

    def count(self) -> int:
        """The rows of one pass. Only where a mask drops rows must the model run."""
        rng = np.random.default_rng(0)
        if self._masked:
            return sum(map(len, self.rows(rng, shuffled=False)))
        total = 0
        per_sample: dict[Any, int] = {}
        for x in self.inputs.batches():
            leaves = keras.tree.flatten(x)
            shapes, samples = str([leaf.shape[1:] for leaf in leaves]), len(leaves[0])
            if samples and shapes not in per_sample:
                per_sample[shapes] = len(self._rows(x, rng)) // samples
            total += samples * per_sample.get(shapes, 0)
        return total


def _drawn(mask: Array, count: int, rng: np.random.Generator) -> Array:
    """In each row of a mask at most `count` of the entries that are true, by chance."""
    lots = np.where(mask, rng.random(mask.shape), 2.0)
    order = np.argsort(lots, axis=1)[:, :count]
    drawn = np.zeros_like(mask)
    np.put_along_axis(drawn, order, True, axis=1)
    return drawn & mask


def found_layer(model: keras.Model, layer: Any) -> keras.layers.Layer:
    """The layer of a model that the user means by itself or by its address."""
    if isinstance(layer, keras.layers.Layer):
        if not any(layer is known for known in compat.flat_layers(model)):
            checks.refuse("layer", f"a layer of the model '{model.name}'", layer)
        return layer
    if not isinstance(layer, str):
        checks.refuse("layer", "a layer, its name or its address", layer)
    layers = layers_by_address(model.layers)
    if layer in layers:
        return layers[layer]
    found = {a: x for a, x in layers.items() if fits(re.escape(layer), a)}
    if not found:
        names = {*layers, *(address.split("/")[-1] for address in layers)}
        checks.refuse(
            "layer",
            f"the name or address of a layer in the model '{model.name}', such as "
            f"'{list(layers)[-1]}'.{checks.near(layer, names)}",
            layer,
        )
    if len({id(x) for x in found.values()}) > 1:
        checks.refuse(
            "layer", f"the whole address, one of {', '.join(map(repr, found))}", layer
        )
    return next(iter(found.values()))


def _upstream(model: Any, layer: Any) -> Any:
    """The part of a model up to a layer; where that is not known, the whole model."""
    graph = compat.graph(model)
    outputs = [
        tensor
        for call in (graph[1] if graph else [])
        if isinstance(call.operation, keras.layers.Layer)
        and any(layer is inner for inner in compat.flat_layers(call.operation))
        for tensor in call.outputs
    ]
    if not outputs:
        return model
    function = compat.functional(model)
    return keras.Model(function.input, outputs, name="upstream")


def _reader(model: Any, layer: Any, call: int | None, dtype: str) -> Read:
    """A function that runs the model as in inference and changes nothing in it."""
    variables = model.variables

    def run(state: list[Tensor], x: Any) -> tuple[Tensor, Tensor | None]:
        scope = keras.StatelessScope(list(zip(variables, state, strict=True)))
        with scope, _outputs_of(layer) as outputs:
            model(x, training=False)
        output = _one_of(outputs, layer, call)
        return ops.cast(output, dtype), compat.keras_mask(output)

    fast = compiled(run)

    def read(x: Any) -> tuple[Array, Array | None]:
        with without_gradients(), _turn:
            output, mask = fast(_values(variables, model), x)
            mask = None if mask is None else ops.convert_to_numpy(mask).astype(bool)
            return ops.convert_to_numpy(output), mask

    return read


def _values(variables: list[Any], model: Any) -> list[Tensor]:
    try:
        return [v.value for v in variables]
    except TypeError:  # Keras took the values away, and what makes first ones
        checks.refuse(
            "model",
            "another model than the one that now trains or predicts on the stream: on "
            "JAX the weights of that one are away meanwhile. Save the stream before",
            model,
        )


@contextlib.contextmanager
def _outputs_of(layer: Any) -> Iterator[list[Any]]:
    """What a layer gives while the context is open, call by call.

    The layer's own `call` is replaced meanwhile: Keras has no hook, and neither a layer
    inside another model nor one of a subclassed model has a tensor in the graph.
    """
    found: list[Any] = []
    quantized = getattr(layer, "quantization_mode", None) is not None
    name = "quantized_call" if quantized else "call"
    plain, thread = getattr(layer, name), threading.get_ident()

    @functools.wraps(plain)
    def noted(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        if threading.get_ident() == thread:
            found.append(None if compat.enclosing_loop() else output)
        return output

    own = vars(layer)
    before = own.get(name)
    own[name] = noted
    try:
        yield found
    finally:
        if before is None:
            del own[name]
        else:
            own[name] = before


def _one_of(outputs: list[Any], layer: Any, call: int | None) -> Tensor:
    """The output of the call that the user means, which must be one tensor."""
    if not outputs:
        checks.refuse("layer", "a layer that the model calls", layer)
    if (call is None and len(outputs) > 1) or (call or 0) >= len(outputs):
        checks.refuse(
            "call",
            f"the number of a call, from 0 to {len(outputs) - 1}: the model calls the "
            f"layer '{layer.name}' {len(outputs)} times",
            call,
        )
    output = outputs[call or 0]
    if output is None:
        checks.refuse(
            "layer", "a layer outside of the loop of a recurrent layer", layer
        )
    if not ops.is_tensor(output):
        checks.refuse(
            "layer",
            "a layer that gives out one tensor. Of several outputs name the layer that "
            "makes the one you mean, or one that takes it",
            layer,
        )
    return output
