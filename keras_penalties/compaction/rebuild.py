"""Second pass: the same model with smaller layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import compat
from keras_penalties.compaction.trace import Kept, Trace
from keras_penalties.layers import Penalized


class Rebuild:
    """A model built again by `clone_model`, with new sizes and cut weights."""

    def __init__(self, trace: Trace, kept: Kept) -> None:
        self._trace = trace
        self._kept = kept
        self._made: dict[int, tuple[Any, Any]] = {}

    def model(self, model: Any) -> Any:
        """The smaller model, with the weights of the old one."""
        new = keras.models.clone_model(model, clone_function=self._layer)
        for old, layer in self._made.values():
            if compat.graph(old) is None and isinstance(old, keras.layers.Layer):
                self._copy_weights(old, layer)
        if not model.trainable:
            new.trainable = False
        if model.compiled:  # again: the optimizer starts from the weights as they are
            new.compile_from_config(model.get_compile_config())
        return new

    def _layer(self, old: Any) -> Any:
        if id(old) not in self._made:
            nested = compat.graph(old) is not None
            self._made[id(old)] = (old, self._nested(old) if nested else self._one(old))
        return self._made[id(old)][1]

    def _nested(self, model: Any) -> Any:
        """A model in a model, on inputs of the new sizes."""
        graph = compat.graph(model)
        assert graph is not None
        new = []
        for tensor, x in zip(graph[0], self._trace.entries[id(model)], strict=True):
            shape = list(tensor.shape)
            if len(x.ids):
                shape[x.axis] = int(self._kept.mask(x.ids).sum())
            new.append(
                keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)
            )
        packed = keras.tree.pack_sequence_as(model.input, new)
        clone = keras.models.clone_model(
            model, input_tensors=packed, clone_function=self._layer
        )
        if not model.trainable:
            clone.trainable = False
        return clone

    def _one(self, old: Any) -> Any:
        config = old.get_config()
        use = self._trace.uses.get(id(old))
        if use is not None:
            inside = config
            if isinstance(old, Penalized):
                inside = config["layer"]["config"]
                config["layer"].pop("build_config", None)  # it has the old shape
            for key, ids in use.rule.sizes.items():
                inside[key] = _resized(inside[key], int(self._kept.mask(ids).sum()))
        return type(old).from_config(config)

    def _copy_weights(self, old: Any, new: Any) -> None:
        use = self._trace.uses.get(id(old))
        cut = self._kept.cut(use) if use is not None else {}
        for before, after in zip(old.variables, new.variables, strict=True):
            after.trainable = before.trainable
            value = ops.convert_to_numpy(before)
            after.assign(np.array(cut.get(id(before), value)))


def _resized(size: Any, count: int) -> Any:
    """A config's size, or the last one of a shape that is not left to be found."""
    if not isinstance(size, list | tuple):
        return count
    return (*size[:-1], size[-1] if size[-1] == -1 else count)
