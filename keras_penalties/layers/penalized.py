"""Penalties on the weights and the outputs of any layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import keras

from keras_penalties import checks, penalties
from keras_penalties.hosting.cautions import say_domain
from keras_penalties.hosting.claims import claim, twin
from keras_penalties.hosting.logs import LOG_OPTIONS
from keras_penalties.hosting.state import Variable
from keras_penalties.hosting.targets import OutputTarget, WeightTarget
from keras_penalties.hosting.term import Term, term_name, terms_of
from keras_penalties.layers.wrapper import WrappingLayer
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Penalized(WrappingLayer):
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
        log: `"weight"` for one entry of the logs a term, `"rule"` for one that sums all
            weights' terms of one kind of penalty, `<layer>_<penalty>`, or `False` for
            none. Default `"weight"`.

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

    stored_as = {"weights": "weight_penalties"}  # noqa: RUF012

    def __init__(
        self,
        layer: Any,
        weights: Mapping[str, Any] | None = None,
        outputs: Any = None,
        log: str | bool = "weight",
        **kwargs: Any,
    ) -> None:
        checks.instance("layer", layer, keras.layers.Layer)
        given = checks.mapping("weights", weights or {}, "{'kernel': 'l1(0.1)'}")
        if not given and outputs is None:
            checks.refuse("weights", "a penalty, here or in `outputs`", weights)
        kwargs.setdefault("name", f"penalized_{layer.name}")
        super().__init__(layer, **kwargs)
        self.weight_penalties = {
            name: penalties.get(penalty, f"weights['{name}']")
            for name, penalty in given.items()
        }
        self.outputs = None if outputs is None else penalties.get(outputs, "outputs")
        if self.outputs is not None:
            say_domain(self.outputs, layer)
        self.log = checks.one_of("log", log, LOG_OPTIONS)
        found = self._all_terms()
        shown = None if log == "weight" else [self._entry(term) for term in found]
        self._declare(found, shown)

    def _all_terms(self) -> list[Term]:
        terms = []
        for address, penalty in self.weight_penalties.items():
            if penalty.statistic:
                checks.refuse("weights", "no statistic of a batch", penalty)
            target = WeightTarget(address)
            terms += terms_of(penalty, target, target.path(self.layer.name))
        if self.outputs is not None:
            path = f"{self.layer.name}/output"
            terms += terms_of(self.outputs, OutputTarget(), path)
        return terms

    def _entry(self, term: Term) -> str | None:
        """The entry of the logs that a term belongs to, unless it has its own."""
        if not self.log:
            return None
        if isinstance(term.target, WeightTarget) and isinstance(term.penalty, Penalty):
            return term_name(self.layer.name, term.penalty.name)
        return term.name

    def call(
        self, inputs: Tensor, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """What the layer gives out, the terms added to the loss.

        Keras itself hands `training` on to the layer.
        """
        outputs = self.layer(inputs, *args, **kwargs)
        self._refuse_doubles()
        if not self._losses_wanted():
            return outputs
        targets = {
            t: self.variable(t.target.address)
            if isinstance(t.target, WeightTarget)
            else outputs
            for t in self.terms
        }
        opened = self._opened_pass(training)
        return self._add_terms(opened, targets, inputs, outputs)

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

    def _weight_parts(self) -> Iterator[tuple[Variable, Penalty]]:
        for address, penalty in self.weight_penalties.items():
            for part in penalty.parts():
                yield self.variable(address), part

    def _refuse_doubles(self) -> None:
        """Each penalty acts once on a weight, whoever hosts it.

        What this layer puts on its weights is claimed here, for `Proximal` to look at.
        """
        there: dict[int, tuple[Variable, list[Penalty]]] = {}
        for variable, penalty in self._weight_parts():
            _, found = there.setdefault(id(variable), (variable, []))
            own = next((p for p in found if p.alike(penalty)), None)
            if (other := own or twin(variable, penalty, self)) is not None:
                raise ValueError(
                    f"The weight '{variable.path}' already carries a penalty that is "
                    f"equal except for the strength: {checks.shown(other)}. Add the "
                    "strengths and keep one. "
                    f"Received: weights={checks.shown(self.weight_penalties)}"
                )
            found.append(penalty)
        for variable, found in there.values():
            claim(variable, self, found)

    def variable(self, address: str) -> Variable:
        """The wrapped layer's weight of that name."""
        variables = self.layer.variables
        found = [v for v in variables if f"/{v.path}".endswith(f"/{address}")]
        if len(found) != 1:
            paths = [v.path for v in (found or variables)]
            checks.refuse(
                "weights",
                f"names that fit one weight each of '{self.layer.name}', which has "
                f"{paths}",
                address,
            )
        return found[0]

    def target_weight(self, term: Term) -> Variable | None:
        """The wrapped layer's weight, once the layer is built."""
        if not isinstance(term.target, WeightTarget) or not self.layer.built:
            return None
        return self.variable(term.target.address)

    def acts(self, term: Term) -> bool:
        """Whether what the term penalises can move."""
        weight = self.target_weight(term)
        return weight is None or bool(weight.trainable)

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: on weights and the output, and on one."""
        dense = keras.layers.Dense(2, activation="sigmoid")
        linear = keras.layers.Dense(3, name="linear")
        both = {"kernel": "l2(0.1)", "bias": "l2(0.2)"}
        return [
            cls(dense, weights={"kernel": "l1(0.1)"}, outputs="kl_sparsity(0.5)"),
            cls(linear, weights={"kernel": "l2(0.1)", "bias": "l1(0.1)"}),
            cls(linear, weights=both, log="rule"),
            cls(linear, outputs="l1(0.1)", log=False),
        ]
