"""Penalties on the weights and the outputs of any layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self

import keras

from keras_penalties import checks, penalties
from keras_penalties.layers.base import PenaltyLayer, Term
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Penalized(PenaltyLayer):
    """Wraps a layer and adds penalties on its weights and its outputs to the loss.

    A weight's term counts once in a forward pass, however often the layer is called in
    it. While the weight is frozen it does not act, which a warning says. The logs have
    `<layer>_<weight>_<penalty>` and `<layer>_output_<penalty>`.

    Args:
        layer: The layer to wrap.
        weights: Penalties by the weight's name in the layer: `"kernel"`, or a path such
            as `"query/kernel"` where the last word alone is not unique.
        outputs: A penalty on what the layer gives out, divided by the batch size unless
            it is a statistic of the batch.

    Shapes: the layer's own.

    Example:
        >>> import keras, keras_penalties as kp
        >>> dense = keras.layers.Dense(2, kernel_initializer="ones", name="encoder")
        >>> layer = kp.layers.Penalized(dense, weights={"kernel": "l2(0.5)"})
        >>> _ = layer(keras.ops.zeros((1, 3)))
        >>> layer.terms[0].name, float(layer.losses[0])
        ('encoder_kernel_l2', 3.0)

    Raises:
        ValueError: if nothing is penalised, a name fits no weight or several, or the
            weight has a penalty of the same kind in its own slot.
    """

    def __init__(
        self,
        layer: Any,
        weights: Mapping[str, Any] | None = None,
        outputs: Any = None,
        **kwargs: Any,
    ) -> None:
        checks.instance("layer", layer, keras.layers.Layer)
        if not weights and outputs is None:
            checks.refuse("weights", "a penalty, here or in `outputs`", weights)
        kwargs.setdefault("name", f"penalized_{layer.name}")
        super().__init__(**kwargs)
        self.layer = layer
        self.supports_masking = layer.supports_masking
        self.weight_penalties = {
            name: penalties.get(given) for name, given in (weights or {}).items()
        }
        self.output_penalty = None if outputs is None else penalties.get(outputs)
        self._declare(self._all_terms())

    def _all_terms(self) -> list[Term]:
        terms = []
        for target, penalty in self.weight_penalties.items():
            if penalty.statistic:
                checks.refuse("weights", "no statistic of a batch", penalty)
            word = target.replace("/", "_")
            terms += [
                Term(f"{self.layer.name}_{word}_{part.name}", part, target)
                for part in penalty.parts()
            ]
        if self.output_penalty is not None:
            terms += [
                Term(f"{self.layer.name}_output_{part.name}", part, "output")
                for part in self.output_penalty.parts()
            ]
        return terms

    def build(self, input_shape: Any = None) -> None:
        """Build the layer, where one shape says all, and the terms' weights.

        A layer of several inputs, as attention is, is built by its first call.
        """
        super().build(input_shape)
        alone = len(inspect.signature(self.layer.build).parameters) == 1
        if alone and not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True

    def call(
        self, inputs: Tensor, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """What the layer gives out, the terms added to the loss.

        Keras itself hands `training` on to the layer.
        """
        outputs = self.layer(inputs, *args, **kwargs)
        self._refuse_doubles()

        targets = {
            t: outputs if t.target == "output" else self.variable(t.target)
            for t in self.terms
        }
        return self._add_terms(targets, inputs, training, outputs)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer's own, by its shapes alone where it knows them: nothing is traced.

        What `call` would refuse is refused here too, when the model is made.
        """
        default = keras.layers.Layer.compute_output_shape
        if type(self.layer).compute_output_shape is default or not self.layer.built:
            return super().compute_output_spec(inputs, *args, **kwargs)
        self._refuse_doubles()
        kwargs.pop("training", None)  # not every layer takes it
        return self.layer.compute_output_spec(inputs, *args, **kwargs)

    def _refuse_doubles(self) -> None:
        """Each weight has at most one penalty of a kind, its own slot's included.

        The weights learn which kinds they have here, for `Proximal` to look at: it is
        built later, from the weights alone.
        """
        seen: dict[int, set[str]] = {}
        for term in self.terms:
            if term.target == "output":
                continue
            variable, kind = self.variable(term.target), type(term.penalty).__name__
            slot = type(variable.regularizer).__name__
            kinds = seen.setdefault(id(variable), set())
            if kind == slot or kind in kinds:
                raise ValueError(
                    f"The weight '{variable.path}' already carries a penalty of the "
                    f"kind {kind}. Add the strengths and keep one. "
                    f"Received: weights={self.weight_penalties}"
                )
            kinds.add(kind)
            variable.penalized_kinds = kinds

    def variable(self, target: str) -> Any:
        """The wrapped layer's weight of that name."""
        found = [v for v in self.layer.variables if f"/{v.path}".endswith(f"/{target}")]
        if len(found) != 1:
            paths = [v.path for v in (found or self.layer.variables)]
            checks.refuse(
                "weights",
                f"names that fit one weight each of '{self.layer.name}', which has "
                f"{paths}",
                target,
            )
        return found[0]

    def acts(self, term: Term) -> bool:
        """Whether what the term penalises can move."""
        if term.target == "output" or not self.layer.built:
            return True
        return bool(self.variable(term.target).trainable)

    def target_path(self, term: Term) -> str:
        """The wrapped layer, and the weight's name in it."""
        name: str = self.layer.name
        return name if term.target == "output" else f"{name}/{term.target}"

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The layer's own."""
        return self.layer.compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        serialize = keras.saving.serialize_keras_object
        config = {
            "layer": serialize(self.layer),
            "weights": {n: serialize(p) for n, p in self.weight_penalties.items()},
            "outputs": serialize(self.output_penalty),
        }
        return {**super().get_config(), **config}

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: on weights and the output, and on one."""
        dense = keras.layers.Dense(2, activation="sigmoid")
        linear = keras.layers.Dense(3, name="linear")
        return [
            cls(dense, weights={"kernel": "l1(0.1)"}, outputs="kl_sparsity(0.5)"),
            cls(linear, weights={"kernel": "l2(0.1)", "bias": "l1(0.1)"}),
            cls(linear, outputs="l1(0.1)"),
        ]
