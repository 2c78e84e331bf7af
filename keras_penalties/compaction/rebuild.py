"""The second pass over a model: the same model is built with smaller layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import compat
from keras_penalties.compaction.trace import Kept, Trace
from keras_penalties.layers import Penalized


class Rebuild:
    """Builds a model again by `clone_model`, with new sizes and smaller weights."""

    def __init__(self, trace: Trace, kept: Kept) -> None:
        self._trace = trace
        self._kept = kept
        self._made: dict[int, tuple[keras.Operation, keras.Operation]] = {}

    def model(self, model: keras.Model) -> keras.Model:
        """The smaller model, with the weights of the old one."""
        new = keras.models.clone_model(model, clone_function=self._layer)
        for old, layer in self._made.values():
            if compat.graph(old) is None and isinstance(old, keras.layers.Layer):
                self._copy_weights(old, layer)
        if not model.trainable:
            new.trainable = False
        if model.compiled:  # a new optimizer, which starts from the new weights
            new.compile_from_config(model.get_compile_config())
        return new

    def _layer(self, old: keras.Operation) -> keras.Operation:
        if id(old) not in self._made:
            nested = compat.graph(old) is not None
            self._made[id(old)] = (old, self._nested(old) if nested else self._one(old))
        return self._made[id(old)][1]

    def _nested(self, model: keras.Model) -> keras.Model:
        """A nested model, with inputs of the new sizes."""
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

    def _one(self, old: keras.Operation) -> keras.Operation:
        config = old.get_config()
        traced = self._trace.layers.get(id(old))
        if traced is not None:
            inside = config
            if isinstance(old, Penalized):
                inside = config["layer"]["config"]
                config["layer"].pop("build_config", None)  # it has the old shapes
            for key, ids in traced.rule.sizes.items():
                inside[key] = _resized(inside[key], int(self._kept.mask(ids).sum()))
        return type(old).from_config(config)

    def _copy_weights(self, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
        traced = self._trace.layers.get(id(old))
        cut = self._kept.cut(traced) if traced is not None else {}
        for before, after in zip(old.variables, new.variables, strict=True):
            after.trainable = before.trainable
            value = ops.convert_to_numpy(before)
            after.assign(np.array(cut.get(id(before), value)))


def _resized(size: Any, count: int) -> Any:
    """A size in a config, or a shape whose last size is replaced unless it is -1."""
    if not isinstance(size, list | tuple):
        return count
    return (*size[:-1], size[-1] if size[-1] == -1 else count)
