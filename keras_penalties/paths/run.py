"""Models along a path of strengths, each trained on from the one before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import widened
from keras_penalties.paths.folder import Folder, fingerprint
from keras_penalties.paths.max_strength import max_strength
from keras_penalties.paths.measure import Data, Measure, zeros
from keras_penalties.paths.result import Array, Path, Point, variables_of
from keras_penalties.paths.zeroing import Zeroing, zeroing_terms
from keras_penalties.terms import set_strength

__all__ = ["path"]

Grid: TypeAlias = list[list[float] | None]
"""The strengths of each rule that makes zeros, point by point; None: it keeps its own.
In the order of the rules, since the names of terms change where Keras numbers them."""
POINTS, SPAN, MARGIN = 20, 1000.0, 1.01
"""How many strengths the default path has, how many times the last is the first, and
how many times `max_strength` the last is: at that itself rounding decides on zeros."""


def path(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    epochs: int,
    strengths: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    validation_data: Any = None,
    sample_weight: Any = None,
    batch_size: int = 32,
    shuffle: bool = True,
    callbacks: Sequence[Any] | None = None,
    folder: Any = None,
    seed: int = 0,
) -> Path:
    """Train a model at one strength after another, each on from the weights before.

    It is the regularisation path, as glmnet and LassoNet compute it: from dense to
    sparse where the strengths increase, and back where they decrease. Each point goes
    on from the weights of the point before, and with the optimizer's state at the call:
    momenta and learning rate schedules start anew. Each point is measured with its
    final weights. The model is left with the weights and the strengths of the last
    point, and its optimizer as it was.

    Args:
        model: A built model, compiled with `Proximal`. The first point is trained from
            its weights as they are, so train it first where the path starts dense.
        x: As `fit` takes it: arrays, or a dataset that has an end.
        y: The targets; None where a dataset brings them.
        epochs: How long each point is trained, in epochs.
        strengths: Numbers of 0 or more for all terms of `Proximal` that make zeros, or
            `{term: numbers}`, as many for each; other terms keep theirs. Default None:
            20 for each term, from a thousandth up to 1.01 times its `max_strength`.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset. Each point is
            measured on it, and each epoch if there are `callbacks`. Default None.
        sample_weight: A weight for each sample. Default None.
        batch_size: How many samples of arrays make a batch. Default 32.
        shuffle: Whether `fit` shuffles arrays before each epoch. Default True.
        callbacks: What each `fit` takes, such as an `EarlyStopping`. Default none.
        folder: Where each finished point is written, whole. A second call with that
            folder goes on after the last finished point, from the weights that lie
            there, and its result is equal to that of one call, bit by bit, where the
            backend itself and a dataset that shuffles repeat what they do. It is
            refused if the strengths, the other numbers or the model have changed; data
            and callbacks, which must be the same too, are not compared. Default None:
            points are kept in memory.
        seed: `keras.utils.set_random_seed` is called with `seed` plus the place of the
            point before each point, which sets the random state of Python, numpy and
            the backend. Default 0.

    Returns:
        A `Path`: a table of the points, their plot, the best one, and their weights.

    Raises:
        ValueError: if the model has no rule of `Proximal` that makes zeros, the
            strengths do not fit its terms, or the folder has another path.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> line = keras.layers.Dense(1, use_bias=False)
        >>> model = keras.Sequential([keras.Input((2,)), line])
        >>> sgd = keras.optimizers.SGD(0.25)
        >>> model.compile(kp.optimizers.Proximal(sgd, {"kernel": "l1(0)"}), "mse")
        >>> x = np.array([[1.0, 1.0], [-1.0, 1.0]])
        >>> found = kp.path(model, x, x @ [[3.0], [1.0]], strengths=[1, 4], epochs=30)
        >>> print(found)
        point  strength  loss  nonzeros
        0      1         0.5   2
        1      4         5     1

    Source: Friedman, Hastie and Tibshirani, "Regularization Paths for Generalized
    Linear Models via Coordinate Descent", 2010; Lemhadri, Ruan, Abraham and Tibshirani,
    "LassoNet: A Neural Network with Feature Sparsity", 2021.
    """
    checks.instance("model", model, keras.Model)
    rules = zeroing_terms(model)
    size = checks.integer("batch_size", batch_size)
    asked: dict[str, Any] = {
        "strengths": _asked(strengths, rules),
        "epochs": checks.integer("epochs", epochs),
        "batch_size": size,
        "shuffle": bool(shuffle),
        "seed": checks.integer("seed", seed, low=0),
    }
    data, held = Data("x", x, y, sample_weight, size), None
    if validation_data is not None:
        a, b, weight = keras.utils.unpack_x_y_sample_weight(validation_data)
        held = Data("validation_data", a, b, weight, size)
    walk = _Walk(model, rules, Measure(model, data, held))
    points = walk.begin(asked, None if folder is None else Folder(folder))
    fit = {"epochs": epochs, "shuffle": shuffle, "callbacks": callbacks, "verbose": 0}
    if callbacks:  # nobody else sees the values of an epoch
        fit["validation_data"] = validation_data
    for place in range(len(points), walk.count):
        walk.prepare(place)
        keras.utils.set_random_seed(seed + place)
        model.fit(**data.arguments(), **fit)
        points.append(walk.point(place))
    walk.prepare(walk.count - 1)
    return Path(tuple(points))


class _Walk:
    """Takes a model from point to point."""

    def __init__(self, model: Any, rules: list[Zeroing], measure: Measure) -> None:
        self.model, self.rules, self.measure = model, rules, measure
        self.folder: Folder | None = None
        self.grid: Grid = []
        self.state: list[Array] = []

    def begin(self, asked: dict[str, Any], folder: Folder | None) -> list[Point]:
        """Go to the start, or to where a call before stopped: its finished points."""
        self.folder = folder
        if folder is not None:
            asked = {**asked, "model": fingerprint(self.model)}
        plan = None if folder is None else folder.resume(asked)
        _keep_starts(self.model, self.rules)
        variables = variables_of(self.model)
        start = _arrays([*variables, *self.model.optimizer.variables])
        if plan is None:
            self.grid = asked["strengths"] or _default(self.rules, self.measure)
            if folder is not None:
                folder.begin({"asked": asked, "grid": self.grid}, start)
            points = []
        else:
            assert folder is not None
            self.grid = plan["grid"]
            start, points = folder.start(), folder.points(self.names)
        # In its first fit Keras reads a batch to build the losses and metrics, and so
        # draws random numbers, which no later fit does. An evaluation builds them too.
        self.measure.values()
        self.state = start[len(variables) :]
        now = points[-1].weights if points else start[: len(variables)]
        _assign(variables, now)
        return points

    @property
    def names(self) -> list[str]:
        """The terms whose strengths move."""
        moved = zip(self.rules, self.grid, strict=True)
        return [rule.name for rule, numbers in moved if numbers is not None]

    @property
    def count(self) -> int:
        """How many points the path has."""
        return next(len(numbers) for numbers in self.grid if numbers is not None)

    def strengths(self, place: int) -> dict[str, float]:
        """The strengths at a point."""
        moved = [numbers[place] for numbers in self.grid if numbers is not None]
        return dict(zip(self.names, moved, strict=True))

    def prepare(self, place: int) -> None:
        """The optimizer as at the start, with the strengths of a point."""
        _assign(self.model.optimizer.variables, self.state)
        for name, strength in self.strengths(place).items():
            set_strength(self.model, name, strength)

    def point(self, place: int) -> Point:
        """The model as it is now, as a point; written if the path has a folder."""
        nonzeros, groups = zeros(self.rules)
        point = Point(
            place,
            self.strengths(place),
            self.measure.values(),
            self.measure.standard_error(),
            nonzeros,
            groups,
            arrays=tuple(_arrays(variables_of(self.model))),
        )
        return point if self.folder is None else self.folder.finish(point)


def _asked(strengths: Any, rules: Sequence[Zeroing]) -> Grid | None:
    """The strengths for each rule, in order; None for the default ones."""
    if strengths is None:
        return None
    names = [rule.name for rule in rules]
    if not isinstance(strengths, Mapping):
        strengths = dict.fromkeys(names, strengths)
    for name in strengths:
        if name not in names:
            expected = f"the names of terms that make zeros, {names}"
            checks.refuse("strengths", f"{expected}.{checks.near(name, names)}", name)
    numbers = {n: checks.floats("strengths", s, 1, 0.0) for n, s in strengths.items()}
    counts = {len(given) for given in numbers.values()}
    if len(counts) != 1 or counts == {0}:
        expected = "one strength or more, and as many for each term"
        checks.refuse("strengths", expected, strengths)
    return [numbers.get(name) for name in names]


def _default(rules: Sequence[Zeroing], measure: Measure) -> Grid:
    """From a thousandth of the strength that makes a weight zero, to just above it."""
    data = measure.data
    given = {**data.arguments(), "batch_size": data.batch_size}
    tops = max_strength(measure.model, **given)
    for rule in rules:
        if not tops[rule.name] > 0:
            expected = f"given: the loss has no slope at '{rule.weight.path}' = 0"
            checks.refuse("strengths", expected, None)
    ends = [MARGIN * tops[rule.name] for rule in rules]
    return [np.geomspace(end / SPAN, end, POINTS).tolist() for end in ends]


def _keep_starts(model: Any, rules: Sequence[Zeroing]) -> None:
    """Let the weights now be the start of a term that is anchored to its start.

    Else each point would begin with an optimizer that takes its own weights for it.
    """
    for owner in {id(rule.owner): rule.owner for rule in rules}.values():
        for weight, assigned in owner.assigned(model.trainable_variables):
            owner.anchors.together(assigned.penalty, assigned.terms, widened(weight))


def _arrays(variables: Sequence[Any]) -> list[Array]:
    # A copy: on a CPU the array may be a view of a weight that goes on to be trained.
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def _assign(variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
