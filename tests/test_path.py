"""`path`: its points against scikit-learn and LassoNet, its choice, its folder."""

from __future__ import annotations

import math
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops
from oracles import torch

import keras_penalties as kp
from keras_penalties import penalties as p
from keras_penalties.optimizers import Proximal
from keras_penalties.paths.folder import Folder, fingerprint
from keras_penalties.paths.result import Path, Point, variables_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = (X[:, :2] @ RNG.normal(size=(2, 2)) + RNG.normal(size=(40, 2))).astype("float32")
HELD = (X[:25] + 0.1, Y[:25])


def array(x):
    return np.array(ops.convert_to_numpy(x))


def linear(penalty="l1(0.1)", features=6, units=1, rate=0.1, steps=1, momentum=0.9):
    dense = keras.layers.Dense(units, use_bias=False, name="line")
    model = keras.Sequential([keras.Input((features,)), dense], name="net")
    sgd = keras.optimizers.SGD(rate, momentum=momentum, nesterov=momentum > 0)
    rules = {"line/kernel": penalty}
    steps = 1 if keras.backend.backend() == "torch" else steps  # torch has 1 only
    model.compile(Proximal(sgd, rules), "mse", steps_per_execution=steps)
    return model


def diabetes():
    """Features of mean 0 and variance 1, and targets of mean 0."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x, y = x * math.sqrt(len(x)), (y - y.mean()) / y.std()
    return x.astype("float32"), y.astype("float32")[:, None]


def all_data(x, y, steps):
    """An epoch of so many steps, each with all the data: an epoch takes time."""
    return np.tile(x, (steps, 1)), np.tile(y, (steps, 1))


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize(
    "order",
    [
        pytest.param(-1, id="dense to sparse"),
        pytest.param(1, id="sparse to dense"),
    ],
)
def test_scikit_learns_lasso_path_on_diabetes(order):
    from sklearn.linear_model import lasso_path

    x, y = diabetes()
    model = linear(features=10, rate=0.1, steps=100, momentum=0.95)
    top = next(iter(kp.max_strength(model, x, y).values()))
    strengths = top * np.geomspace(1.0, 0.01, 4)[::order]
    found = kp.path(
        model,
        *all_data(x, y, 100),
        strengths=strengths,
        epochs=8,
        batch_size=len(x),
        shuffle=False,
    )
    # Its objective has 1/(2n), and its strengths go down.
    alphas = np.sort(strengths)[::-1] / 2
    wide = x.astype("float64"), y[:, 0].astype("float64")
    _, expected, _ = lasso_path(*wide, alphas=alphas, tol=1e-10, max_iter=10**5)
    for point, coefficients in zip(found.points, expected.T[::order], strict=True):
        kernel = point.weights[0][:, 0]
        np.testing.assert_allclose(kernel, coefficients, atol=2e-4)
        assert point.nonzeros == np.count_nonzero(coefficients)
        residual = wide[0] @ kernel - wide[1]
        assert point.values["loss"] == pytest.approx(np.mean(residual**2), rel=1e-5)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lassonets_path_where_it_is_linear(momentum):
    """With M = 0 LassoNet's hidden units see nothing: a group lasso on two outputs.

    LassoNet's map takes the learning rate as its step also where momentum makes steps
    that are longer by 1/(1 - momentum): its strength acts as so many times less.
    """
    lassonet = pytest.importorskip("lassonet")
    strengths = [0.05, 0.2, 0.5, 1.0]
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=momentum)
    theirs = lassonet.LassoNetRegressor(
        hidden_dims=(3,),
        lambda_seq=[s / (1 - momentum) for s in strengths],
        M=0,
        optim=sgd,
        n_iters=(500, 500),
        patience=None,
        val_size=0,
        verbose=0,
    )
    x, y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    history = theirs.path(x, y, return_state_dicts=True)[1:]
    rows = p.Grouped(p.L1(0.1), axis=0)
    model = linear(rows, units=2, steps=50, momentum=momentum)
    many = all_data(x, y, 50)
    # Keras means over the outputs; LassoNet's criterion does so too.
    ours = kp.path(
        model, *many, strengths=strengths, epochs=10, batch_size=40, shuffle=False
    )
    counts = set()
    for point, item in zip(ours.points, history, strict=False):
        kernel = item.state_dict["skip.weight"].numpy().T
        np.testing.assert_allclose(point.weights[0], kernel, atol=1e-4)
        selected = point.weights[0].any(axis=1)
        np.testing.assert_array_equal(selected, item.selected.numpy())
        assert point.groups == np.sum(selected)
        counts.add(point.groups)
    assert len(counts) > 2


def net(rate=0.01, width=4, between=()):
    """A model in which Keras numbers the names of layers and terms."""
    first, last = keras.layers.Dense(width, "relu"), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((6,)), first, *between, last])
    rows = p.L1(0.01) + p.Grouped(p.L1(0.01), axis=0)
    optimizer = Proximal(keras.optimizers.Adam(rate), {first.kernel.path: rows})
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def random_net():
    """The same with random generators, and with statistics of batches."""
    layers = keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)
    return net(between=layers)


class Stop(keras.callbacks.Callback):
    """Stops the whole path in the midst of its last point but one."""

    def on_epoch_begin(self, epoch, logs=None):
        iterations = int(self.model.optimizer.iterations)
        strength = max(t.strength for t in kp.terms(self.model))
        if strength > 0.15 and iterations:
            raise KeyboardInterrupt


def walk(model, folder=None, strengths=(0.02, 0.1, 0.2, 0.4), epochs=2, **kwargs):
    kwargs = {"batch_size": 16, "validation_data": HELD, **kwargs}
    given = {"strengths": strengths, "epochs": epochs, "folder": folder}
    return kp.path(model, X, Y, **given, **kwargs)


def assert_equal(a, b):
    assert len(a.points) == len(b.points)
    for one, other in zip(a.points, b.points, strict=True):
        assert list(one.strengths.values()) == list(other.strengths.values())
        assert (one.values, one.standard_error) == (other.values, other.standard_error)
        assert (one.nonzeros, one.groups) == (other.nonzeros, other.groups)
        for x, y in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("made", [net, random_net])
def test_a_path_that_was_stopped_goes_on_to_the_same_result(made, tmp_path):
    keras.utils.set_random_seed(1)
    model = made()
    start = [array(v) for v in variables_of(model)]
    # Each call has a callback: with one the epochs are validated, which on torch draws
    # from the generator that shuffles, too.
    whole = walk(model, callbacks=[keras.callbacks.Callback()])
    for variable, value in zip(variables_of(model), start, strict=True):
        variable.assign(value)
    with pytest.raises(KeyboardInterrupt):
        walk(model, tmp_path / "here", callbacks=[Stop()])
    names = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert names == ["path.json", "point_000.npz", "point_001.npz", "start.npz"]
    other = made()  # its own names and weights
    resumed = walk(other, tmp_path / "here", callbacks=[keras.callbacks.Callback()])
    assert_equal(resumed, whole)
    again = walk(other, tmp_path / "here")  # nothing is left to train
    assert_equal(again, whole)
    for variable, last in zip(
        variables_of(other), whole.points[-1].weights, strict=True
    ):
        np.testing.assert_array_equal(array(variable), last)


def test_another_path_in_the_same_folder_is_refused(tmp_path):
    asked = {"strengths": [[0.1], [0.1]], "epochs": 1, "batch_size": 16}
    asked |= {"shuffle": True, "seed": 0, "model": fingerprint(net())}
    Folder(tmp_path).begin({"asked": asked, "grid": [[0.1], [0.1]]}, [])
    for wrong, match in (
        ({"strengths": [0.2]}, r"another `strengths`, \[\[0.1\], \[0.1\]\]"),
        ({"epochs": 2}, "another `epochs`, 1"),
        ({"seed": 1}, "another `seed`, 0"),
        ({"model": net(rate=0.02)}, "another `model`"),
        ({"model": net(width=5)}, "another `model`"),
    ):
        given = {"model": net(), "epochs": 1, "strengths": [0.1], **wrong}
        with pytest.raises(ValueError, match=f"`folder`.*{match}"):
            walk(folder=tmp_path, **given)


def test_a_point_that_is_half_written_is_not_there(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        walk(net(), tmp_path, epochs=1, strengths=[0.1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.one_backend
def test_the_default_strengths_end_where_all_is_zero():
    x, y = X, Y[:, :1]
    model = linear("l1(0.1) + l2(0.3)", rate=0.2, steps=10, momentum=0.0)
    (name, top) = next(iter(kp.max_strength(model, x, y).items()))
    many = all_data(x, y, 20)
    found = kp.path(model, *many, epochs=2, batch_size=40, shuffle=False)
    strengths = [point.strengths[name] for point in found.points]
    end = 1.01 * top
    np.testing.assert_allclose(strengths, np.geomspace(end / 1000, end, 20))
    assert found.points[0].nonzeros == 6
    assert [t.strength for t in kp.terms(model)] == pytest.approx([end, 0.3])
    assert found.points[-1].nonzeros == 0
    assert [list(point.strengths) for point in found.points] == [[name]] * 20


@pytest.mark.slow_on_tensorflow
def test_each_point_starts_with_the_optimizer_as_it_was():
    """Its momentum, its schedule, and what a term was anchored to at the start."""
    rates = []

    class Rate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(ops.convert_to_numpy(self.model.optimizer.iterations)))

    near_start = p.L1(0.1) + p.ToReference(5.0, values="start")
    model = linear(near_start, momentum=0.0)
    start = array(model.layers[0].kernel)
    given = {"epochs": 2, "batch_size": 40, "callbacks": [Rate()]}
    found = kp.path(model, X, Y[:, :1], strengths=[0.0, 0.0, 0.0], **given)
    assert max(rates) <= 1
    assert array(model.optimizer.iterations) == 0
    (anchor,) = [v for v in model.optimizer.variables if "values" in v.path]
    np.testing.assert_array_equal(array(anchor), start)
    assert len(found.points) == 3


def points(values, errors, nonzeros):
    rows = zip(values, errors, nonzeros, strict=True)
    return Path(
        tuple(
            Point(i, {"a": 0.1 * (i + 1)}, {"loss": 1.0, "val_loss": v}, e, n, None)
            for i, (v, e, n) in enumerate(rows)
        )
    )


def test_the_sparsest_within_one_standard_error():
    path = points([1.0, 0.5, 0.55, 0.59, 0.61, math.nan], [0.1] * 6, [9, 8, 7, 5, 2, 0])
    assert path.best().place == 1
    assert path.best(one_standard_error=True).place == 3
    assert path.best("val_loss", mode="max").place == 0
    with pytest.raises(ValueError, match=r"`metric`.*'val_loss'"):
        path.best("val_acc")
    with pytest.raises(ValueError, match=r"`one_standard_error`"):
        path.best("loss", one_standard_error=True)
    with pytest.raises(ValueError, match=r"`one_standard_error`.*two batches"):
        points([1.0], [None], [1]).best(one_standard_error=True)


@pytest.mark.slow_on_tensorflow
def test_the_standard_error_is_glmnets():
    """`cvsd` of `cv.glmnet`, with batches in the place of folds."""
    model = linear(units=2)
    held = X[:25], Y[:25]
    found = kp.path(
        model, X, Y, epochs=1, strengths=[0.1], validation_data=held
    ).points[0]
    losses = np.mean((X[:25] @ found.weights[0] - Y[:25]) ** 2, axis=1)
    folds = [losses[i : i + 3] for i in range(0, 25, 3)]  # of ⌈25/10⌉
    means, sizes = [np.mean(f) for f in folds], [len(f) for f in folds]
    overall = np.average(means, weights=sizes)
    spread = np.average((means - overall) ** 2, weights=sizes)
    assert found.values["val_loss"] == pytest.approx(overall, rel=1e-5)
    expected = math.sqrt(spread / (len(folds) - 1))
    assert found.standard_error == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow_on_tensorflow
def test_table_rows_and_restoring():
    model = net()
    terms = [t.name for t in kp.terms(model)]
    found = walk(model, strengths={terms[1]: [0.0, 3.0]}, epochs=1)
    kernel = found.points[0].weights[0]
    assert found.points[0].nonzeros == np.count_nonzero(kernel)
    assert found.points[0].groups == np.count_nonzero(kernel.any(axis=1))
    head, *lines = str(found).splitlines()
    names = "point strength loss mae val_loss val_mae nonzeros groups"
    assert head.split() == names.split()
    assert [line.split()[:2] for line in lines] == [["0", "0"], ["1", "3"]]
    assert list(found.rows[1]) == names.split()
    assert repr(found) == str(found)
    assert "<th>groups</th>" in found._repr_html_()
    x = found.points[0]
    found.restore(model, x)
    values = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert values["loss"] == pytest.approx(x.values["loss"], rel=1e-6)
    assert [t.strength for t in kp.terms(model)] == pytest.approx([0.01, 0.0])
    with pytest.raises(ValueError, match=r"`model`.*built alike"):
        found.restore(net(width=5), x)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"strengths": {"no": [1.0]}}, "`strengths`.*'line_kernel_l1'"),
        ({"strengths": []}, "`strengths`.*one strength or more"),
        ({"strengths": [-1.0]}, "`strengths`.*0"),
        ({"epochs": 0}, "`epochs`"),
        ({"validation_data": iter([1])}, "`validation_data`.*read again"),
    ],
)
def test_bad_arguments(wrong, match):
    given = {"epochs": 1, "strengths": [0.1], **wrong}
    with pytest.raises(ValueError, match=match):
        kp.path(linear(), X, Y[:, :1], **given)


def test_plot():
    pytest.importorskip("matplotlib").use("agg")
    axes = points([1.0, 0.5, 0.55], [0.1] * 3, [9, 8, 7]).plot()
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "strength")
    labels = axes.get_legend_handles_labels()[1]
    expected = ["best", "within 1 standard error", "loss"]
    assert labels == [*expected, "val_loss ± 1 standard error"]
    assert axes.figure.axes[1].get_ylabel() == "nonzeros"


@pytest.mark.slow
@pytest.mark.one_backend
def test_a_dataset_as_fit_takes_it():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return X[10 * i : 10 * i + 10], Y[10 * i : 10 * i + 10]

    given = {"epochs": 2, "strengths": [0.1, 0.2], "shuffle": False}
    model = linear(units=2)
    start = model.get_weights()
    expected = kp.path(model, X, Y, batch_size=10, validation_data=HELD, **given)
    model.set_weights(start)
    found = kp.path(model, Batches(), validation_data=Batches(), **given)
    for a, b in zip(found.points, expected.points, strict=True):
        np.testing.assert_allclose(a.weights[0], b.weights[0], rtol=1e-5)
