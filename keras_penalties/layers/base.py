"""The layer that hosts terms: it owns all that changes while training."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.anchors import hosted
from keras_penalties.compiling import in_step, pays_to_fuse
from keras_penalties.config import LayerFromSignature
from keras_penalties.hosting.anchors import Anchors, has_anchors, refuse_outputs
from keras_penalties.hosting.cautions import frozen
from keras_penalties.hosting.logs import TermLogs
from keras_penalties.hosting.state import Pass, TermState, Variable
from keras_penalties.hosting.term import Term, distinct
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.refusals import check_slopes
from keras_penalties.strengths import check_host
from keras_penalties.typing import Tensor


class PenaltyLayer(LayerFromSignature):
    """A layer that adds terms to the loss in `call` and shows each in the logs.

    It owns, as non-trainable weights that are saved with the model: the state of the
    terms' strengths, so that a changed strength acts at once under every compiler; the
    sums for the logs; and a step counter where a strength reads the step.

    The counter counts the forward passes in training, each once however often the layer
    is called in the pass, and no evaluation. These are the optimizer's steps, with two
    exceptions: each pass counts under gradient accumulation, and a pass counts even if
    loss scaling skips its step. `Proximal` counts the steps themselves.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ledger = compat.LossLedger()
        # In a namespace, where Keras does not look for weights to save.
        self._now = SimpleNamespace(opened=None, shapes={})
        self._said: set[str] = set()
        self._declare(())

    def _declare(
        self, terms: Iterable[Term], entries: Sequence[str | None] | None = None
    ) -> None:
        """Say in `__init__` which terms this layer hosts.

        Args:
            terms: The terms.
            entries: For each term the entry of the logs that its value is added to, or
                None where it is not logged. By default each term has its own.
        """
        self.terms: tuple[Term, ...] = distinct(terms)
        for term in self.terms:
            if isinstance(term.penalty, Penalty):
                check_slopes(term.penalty)
                check_host(term.given_strength, "layer")
            else:
                check_host(term.given_strength, "loss")
            if has_anchors(term):
                refuse_outputs(term)
        self.state = TermState(self.terms, _assign)
        self.anchors = Anchors(_assign)
        shown: dict[str, list[Term]] | None = None if entries is None else {}
        for term, entry in zip(self.terms, entries or (), strict=False):
            if shown is not None and entry is not None:
                shown.setdefault(entry, []).append(term)
        self.logs = TermLogs(self.terms, shown, self.anchors.check)

    def build(self, input_shape: Any = None) -> None:
        """Create the weights that the terms need."""
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        self.strengths = self._weight("strengths", self.state.initial(), dtype)
        trained = {}
        for term in self.terms:
            if (name := term.strength.trained_as) is not None:
                start = term.strength.initial_weight
                trained[term] = self._weight(name, start, dtype, trainable=True)
                setattr(self, name, trained[term])
        self.state.hold(self.strengths, trained)
        # With several replicas each one sums over its own part of the batch; the log
        # adds them up.
        shared: dict[str, Any] = {"aggregation": "sum", "synchronization": "on_read"}
        self.sums = self._weight("sums", self.logs.initial(), dtype, **shared)
        self.logs.hold(self.sums)
        if any(term.strength.counts_steps for term in self.terms):
            self.steps = self._weight("steps", 0, "int32")
        # Last, so that files from before a penalty had anchors have the same order.
        self.anchor_weights = self.anchors.create(
            self.terms,
            self._target_shape,
            lambda name, array: self._weight(name, array, dtype),
        )
        self.built = True

    def target_weight(self, term: Term) -> Variable | None:
        """The weight that a term penalises, if it is built. Asked in `build`."""
        return None

    def _target_shape(self, term: Term) -> Any:
        if (weight := self.target_weight(term)) is not None:
            return weight.shape
        return self._now.shapes.get(f"{term.name}_values")

    def get_build_config(self) -> dict[str, Any]:
        """What Keras builds the layer from, with the shapes of the anchors.

        When the layer is loaded, the weights that it penalises may not be built yet.
        """
        shapes = self.anchors.shapes()
        own = {"anchor_shapes": shapes} if shapes else {}
        return {**(super().get_build_config() or {}), **own}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build the layer as `get_build_config` has it."""
        config = checks.mapping("config", config, "{'input_shape': (None, 3)}")
        self._now.shapes = config.pop("anchor_shapes", {})
        super().build_from_config(config)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, without the arrays that lie in the weights."""
        with hosted(term.penalty for term in self.terms):
            return super().get_config()

    def _weight(
        self,
        name: str,
        value: Any,
        dtype: str,
        trainable: bool = False,
        **kwargs: Any,
    ) -> Variable:
        """A weight in full precision, which `call` or, if trainable, training moves.

        It becomes a weight of the layer when it is set as an attribute.
        """
        start = np.asarray(value)  # not a tensor: `build` may run inside a trace
        return keras.Variable(  # `add_weight` has no `synchronization`
            lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            shape=start.shape,
            dtype=dtype,
            trainable=trainable,
            autocast=False,
            name=name,
            **kwargs,
        )

    def present_strength(self, term: Term) -> Tensor:
        """The term's strength at the present step; of a target, the multiplier."""
        return self.state.strength(term, self._step())

    def _step(self) -> Any:
        return getattr(self, "steps", 0)

    def acts(self, term: Term) -> bool:
        """Whether the term can change any weight: not one on a frozen weight."""
        return True

    def target_path(self, term: Term) -> str:
        """What the term penalises, named within the model."""
        return term.target.path(self.name)

    @property
    def metrics(self) -> list[Any]:
        """The means of the terms that act, and the metrics of layers inside."""
        acting = {t for t in self.terms if not self.built or self.acts(t)}
        shown = [m for m in self.logs.means if not acting.isdisjoint(m.terms)]
        return [*shown, *super().metrics]

    def latest_terms(self) -> dict[Term, Tensor]:
        """What each term added to the loss in the last forward pass."""
        opened = self._now.opened
        return {} if opened is None else opened.added

    def _opened_pass(self, training: bool | None) -> Pass:
        """The pass that is on, or a new one if this call is the first one in it."""
        training = compat.in_training(training)
        if not self._ledger.is_open(self) or self._now.opened is None:
            with compat.full_precision():
                opened = Pass(self.state, self._step(), training)
            if training and hasattr(self, "steps"):
                self.steps.assign_add(1)
            self._now.opened, self._now.calls = opened, 0
        opened = self._now.opened
        self._now.calls += 1
        return opened

    def _losses_wanted(self) -> bool:
        """Whether anybody will read the losses of this call.

        Raises:
            ValueError: in the body of a loop, whose losses nobody could read.
        """
        if (loop := compat.enclosing_loop()) is not None:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' is called in the loop of {loop}, "
                "where no loss is counted once a step of time. Put it outside, on what "
                "the outer layer gives out (for `RNN`, with `return_sequences=True`), "
                "or write the loop out: `unroll=True`, or an input whose number of "
                "steps is known."
            )
        return compat.losses_wanted()

    def _add_terms(
        self,
        opened: Pass,
        targets: Mapping[Term, Any],
        inputs: Any,
        outputs: Any = None,
    ) -> Any:
        """Add each term's strength × value of its target to the loss and the logs.

        The result is what `call` gives out.
        """
        first_call = self._now.calls == 1
        added = {}
        with compat.full_precision():
            for term, x in targets.items():
                # A weight counts once, however often its layer is called.
                if self._acts_or_says(term) and (first_call or not term.target.once):
                    value_of = self._value(term, x, opened.training)
                    strength, value = opened.measure(term, x, value_of)
                    added[term] = term.strength.added(strength, value)
            for term, loss in added.items():
                opened.added[term] = opened.added.get(term, 0.0) + loss
            batch = ops.shape(_first_tensor(inputs))[0]
            strengths = {t: opened.strengths[t] for t in added}
            self.logs.add(added, strengths, batch, first_call)
        losses = []
        if added:
            total = functools.reduce(operator.add, added.values())
            weights = [targets[t] for t in added if t.target.once]
            if outputs is not None and any(map(pays_to_fuse, weights)):
                total, outputs = in_step(total, outputs)
            losses = [ops.cast(total, keras.config.floatx())]
        self._ledger.add(self, losses)
        return outputs

    def _value(self, term: Term, x: Any, training: bool) -> Any:
        penalty = self.anchors.penalty(term, x, training)
        return lambda: ops.cast(term.value(x, penalty), self.strengths.dtype)

    def _acts_or_says(self, term: Term) -> bool:
        if self.acts(term):
            return True
        if term.name not in self._said:
            self._said.add(term.name)
            warnings.warn(
                f"The term '{term.name}' does not act: {self.target_path(term)} "
                f"{frozen(getattr(self, 'layer', None))}.",
                stacklevel=2,
            )
        return False


def _assign(variable: Variable, x: Tensor) -> None:
    variable.assign(x)


def _first_tensor(inputs: Any) -> Tensor:
    return next(x for x in keras.tree.flatten(inputs) if x is not None)
