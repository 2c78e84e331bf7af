"""The one layer that hosts the terms of a whole model: what `penalize` adds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self

import keras

from keras_penalties import checks, compat, penalties
from keras_penalties.hosting.addresses import layers_by_address, weights_by_name
from keras_penalties.hosting.claims import claim
from keras_penalties.hosting.logs import LOG_OPTIONS
from keras_penalties.hosting.state import Variable
from keras_penalties.hosting.targets import InnerOutputTarget, TermTarget, WeightTarget
from keras_penalties.hosting.term import Term, term_name, terms_of
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register


@register
class ModelPenalty(PenaltyLayer):
    """Stands at a model's output and penalises the weights of the layers before it.

    `keras_penalties.penalize` makes this layer, and is the way to use it. The layer
    gives out what it gets. It holds addresses, such as `"block/dense/kernel"` (layer
    names from the top down, then the weight's own name), and finds the weights in the
    graph of the model whenever it is called. So the layers themselves, their names and
    the files of their weights stay as they are, and the weights that LoRA or
    quantization makes are found too.

    A weight's term counts once in a forward pass. While the weight is frozen it does
    not act, nor does one whose weight is not there any more: a warning says which.

    Args:
        rules: A list of dicts. Each has the `"penalty"`, the `"name"` of the rule in
            the logs, and the addresses: of `"weights"`, or of layers whose `"outputs"`
            are penalised, divided by the batch size unless the penalty is a statistic.
        log: `"rule"` for one entry of the logs a rule (of a sum of penalties one for
            each), `"weight"` for one a term, or `False` for none. Default `"rule"`.

    Shapes: any tensors, unchanged. The second argument, `targets`, has the outputs that
    are penalised: a dict from addresses to lists of tensors.

    Raises:
        ValueError: if a rule has no name, no penalty or no addresses; or if the layer
            is called where no model stands before it.

    Example:
        >>> import keras, keras_penalties as kp
        >>> inputs = keras.Input((3,))
        >>> dense = keras.layers.Dense(2, kernel_initializer="ones", name="line")
        >>> rule = {"name": "line", "weights": ["line/kernel"], "penalty": "l2(0.5)"}
        >>> host = kp.layers.ModelPenalty([rule])
        >>> model = keras.Model(inputs, host(dense(inputs)))
        >>> _ = model(keras.ops.zeros((1, 3)))
        >>> float(model.losses[0])
        3.0
    """

    gives_first_argument = True  # `compat` names a model's outputs by it

    def __init__(
        self,
        rules: Sequence[Mapping[str, Any]],
        log: str | bool = "rule",
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.rules = [_checked(rule) for rule in rules]
        self.log = checks.one_of("log", log, LOG_OPTIONS)
        # In a namespace, where Keras does not look for layers to track and to save.
        self._before = SimpleNamespace(calls=0, layers={})
        pairs = [pair for rule in self.rules for pair in _terms_of_rule(rule)]
        entries = None
        if self.log != "weight":
            entries = [entry if self.log else None for _, entry in pairs]
        self._declare([term for term, _ in pairs], entries)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As of any layer. `build`, in the first call, finds the weights by it."""
        tensors = keras.tree.flatten(inputs)
        if not self.built and all(map(keras.utils.is_keras_tensor, tensors)):
            found = layers_by_address(compat.layers_before(tensors))
            self._before = SimpleNamespace(calls=0, layers=found)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any, targets: Any = None, training: Any = None) -> Any:
        """`inputs`, what the model gives out, the terms added to the loss."""
        weights = self.weights_found()
        for variable, found in _by_variable(weights):
            claim(variable, self, found)
        self._say_what_does_not_act(weights)
        if not self._losses_wanted():
            return inputs
        targeted = {
            t: weights[t] if t in weights else targets[t.target.path("")]
            for t in self.terms
            if not isinstance(t.target, WeightTarget) or self.acts(t)
        }
        opened = self._opened_pass(training)
        return self._add_terms(opened, targeted, inputs, inputs)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The shapes of `inputs`: nothing is traced."""
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype, x.sparse), inputs
        )

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of each output, unchanged."""
        return mask

    def target_weight(self, term: Term) -> Variable | None:
        """The weight at the term's address."""
        return self.weights_found().get(term)

    def weights_found(self) -> dict[Term, Variable]:
        """The weights of the terms on weights, except of those that are gone."""
        on_weights = [t for t in self.terms if isinstance(t.target, WeightTarget)]
        found = {t: self.variable(t.target.path("")) for t in on_weights}
        return {term: weight for term, weight in found.items() if weight is not None}

    def variable(self, address: str) -> Variable | None:
        """The weight at an address, or None if there is none."""
        layer, _, name = address.rpartition("/")
        there = self._layers_before().get(layer)
        return None if there is None else weights_by_name(there).get(name)

    def _layers_before(self) -> dict[str, Any]:
        """The layers before this one, by address."""
        calls = compat.calls(self)
        if self._before.calls != len(calls):
            tensors = [t for call in calls for t in reversed(call.input_tensors)]
            found = layers_by_address(compat.layers_before(tensors))
            self._before = SimpleNamespace(calls=len(calls), layers=found)
        layers: dict[str, Any] = self._before.layers
        return layers

    def _say_what_does_not_act(self, weights: Mapping[Term, Variable]) -> None:
        on_weights = [t for t in self.terms if isinstance(t.target, WeightTarget)]
        if on_weights and not compat.calls(self):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' finds weights in the graph of a "
                "functional model, and is called outside of one. Use "
                "`keras_penalties.penalize(model, rules)`."
            )
        gone = [t for t in on_weights if t not in weights]
        frozen = [t for t in weights if not weights[t].trainable]
        for terms, reason in ((gone, "not in the model"), (frozen, "frozen")):
            new = [t.target.path("") for t in terms if t.name not in self._said]
            self._said.update(t.name for t in terms)
            if new:
                more = f" and {len(new) - 5} more" if len(new) > 5 else ""
                warnings.warn(
                    f"Terms do not act while their weights are {reason}: "
                    f"{', '.join(new[:5])}{more}.",
                    stacklevel=2,
                )

    def acts(self, term: Term) -> bool:
        """Whether what the term penalises is there and can move."""
        if not isinstance(term.target, WeightTarget) or not compat.calls(self):
            return True
        weight = self.variable(term.target.address)
        return weight is not None and bool(weight.trainable)

    def target_path(self, term: Term) -> str:
        """The address."""
        return term.target.path("")

    def load_own_variables(self, store: Any) -> None:
        """As in Keras. From a file of the plain model nothing is loaded."""
        if len(store.keys()):
            super().load_own_variables(store)

    @classmethod
    def examples(cls) -> list[Self]:
        """Penalties on what a layer gives out: weights need a model before the host."""
        rule = {"name": "code", "outputs": ["code"]}
        return [
            cls([{**rule, "penalty": "l1(0.1)"}]),
            cls([{**rule, "penalty": "l1(0.1) + l2(0.2)"}], log="weight"),
            cls([{**rule, "penalty": "kl_sparsity(0.5)"}], log=False),
        ]

    def example_inputs(self, x: Any) -> dict[str, Any]:
        """What the laws call the examples with."""
        return {"inputs": x, "targets": {"code": [x]}}


def _checked(rule: Any) -> dict[str, Any]:
    example = "{'name': 'dense', 'weights': ['dense/kernel'], 'penalty': 'l1(0.1)'}"
    rule = checks.mapping("rules", rule, example)
    kinds = {"weights", "outputs"} & set(rule)
    if set(rule) - kinds != {"name", "penalty"} or len(kinds) != 1:
        checks.refuse("rules", f"dicts such as {example}", rule)
    return {**rule, "penalty": penalties.get(rule["penalty"], "rules")}


def _terms_of_rule(rule: Mapping[str, Any]) -> Iterator[tuple[Term, str]]:
    """Each term of a rule, and the entry of the logs that it belongs to."""
    penalty = rule["penalty"]
    targets: list[tuple[TermTarget, str]] = [
        *((WeightTarget(a), a) for a in rule.get("weights", ())),
        *((InnerOutputTarget(a), f"{a}/output") for a in rule.get("outputs", ())),
    ]
    for target, path in targets:
        terms = terms_of(penalty, target, path)
        for term, part in zip(terms, penalty.parts(), strict=True):
            yield term, term_name(rule["name"], part.name)


def _by_variable(
    weights: Mapping[Term, Variable],
) -> list[tuple[Variable, list[Penalty]]]:
    found: dict[int, tuple[Variable, list[Penalty]]] = {}
    for term, variable in weights.items():
        _, those = found.setdefault(id(variable), (variable, []))
        if isinstance(term.penalty, Penalty):
            those.append(term.penalty)
    return list(found.values())
