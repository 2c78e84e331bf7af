"""The demo: what its captions claim, its pictures, and its check of the reload."""

from __future__ import annotations

import inspect
import itertools
import re

import keras
import numpy as np
import pytest

from keras_penalties import demo, penalize
from keras_penalties.demo import experiment, outcome, pictures, reload

pytestmark = pytest.mark.one_backend

X = np.random.default_rng(0).random((20, 64)).astype("float32")


@pytest.fixture(scope="module")
def tiny():
    """Both models after two steps on noise, and the outcomes."""
    pytest.importorskip("matplotlib")
    pairs = [(m, fitted(m)) for m in (experiment.autoencoder(), penalized())]
    return pairs, [outcome.of(*pair, X, X) for pair in pairs]


def penalized():
    return penalize(experiment.autoencoder(), experiment.PENALTIES)


def fitted(model):
    model.compile("adam", "half_sum_squared_error")
    return model.fit(X, X, batch_size=len(X), epochs=2, verbose=0)


def test_both_models_start_at_the_same_weights():
    plain, other = experiment.autoencoder(), penalized()
    for layer in plain.layers[1:]:
        again = other.get_layer(layer.name).get_weights()
        for one, two in zip(layer.get_weights(), again, strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_check_of_the_reload_sees_a_lost_optimizer(tiny, tmp_path):
    """The same weights, and the optimizer's moments at 0: only the next step tells."""
    model = tiny[0][1][0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    again.compile("adam", "half_sum_squared_error")
    ours, lost = reload.behaviour(model, X), reload.behaviour(again, X)
    assert reload._largest(ours["predictions"], lost["predictions"]) == 0
    name = "weights after one more step"
    assert reload._largest(ours[name], lost[name]) > reload.ROUNDING


def test_the_sentence_says_what_was_found():
    assert reload.sentence({"a": 0.0, "b": 0.0}).split(". ")[0].endswith("the same")
    assert "by rounding" in reload.sentence({"a": 0.0, "b": 1e-7})


def test_no_labels_collide(tiny):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    plain, other = tiny[1]
    for figure in (pictures._activations(plain, other), pictures._loss(other)):
        FigureCanvasAgg(figure).draw()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                texts = [t for t in axis.get_ticklabels() if t.get_text()]
                boxes = [t.get_window_extent() for t in texts]
                assert boxes
                pairs = itertools.combinations(boxes, 2)
                assert not any(one.overlaps(two) for one, two in pairs)


def test_every_penalty_is_in_the_panel_of_its_own(tiny):
    _, right = pictures._loss(tiny[1][1]).axes
    drawn = {line.get_label() for line in right.lines}
    assert drawn == {
        "kernel_l2",
        "decoder_kernel_non_negative",
        "encoder_output_kl_sparsity",
    }


@pytest.mark.slow
def test_the_report_is_whole(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    report = demo.run(tmp_path, epochs=1).read_text("utf-8")
    images = re.findall(r"<img src='(.+?)'", report)
    assert len(images) == 5
    data = {"model.keras", "digits.npz", "report.html"}
    assert {f.name for f in tmp_path.iterdir()} == {*images, *data}
    same = "Reloaded in a fresh process: the same. Largest differences: predictions 0,"
    assert same in report
    assert same in capsys.readouterr().out
    assert "def both(x: np.ndarray, epochs: int)" in report
    assert inspect.getsource(experiment).count("\n") < 90  # who reads more than that?


@pytest.mark.slow
def test_what_the_captions_claim():
    from sklearn.datasets import load_digits

    digits = (load_digits().data / 16.0).astype("float32")
    seen, unseen = digits[:1500], digits[1500:]
    plain, other = (
        outcome.of(*pair, seen, unseen) for pair in experiment.both(seen, demo.EPOCHS)
    )
    means = other.code.mean(axis=0)
    assert abs(means - 0.1).mean() < 0.03
    assert abs(plain.code.mean(axis=0) - 0.1).mean() > 0.3
    assert np.median(other.code) < 0.1 < np.median(plain.code)
    assert (other.filters < -0.01).mean() < 0.01 < 0.4 < (plain.filters < -0.01).mean()
    assert 0.8 < other.explained < plain.explained  # the price
    # Strokes are few pixels: a count of the pixels that share the weights evenly.
    pixels = [pixels_of(o.filters) for o in (plain, other)]
    assert pixels[1] < 0.6 * pixels[0]


def pixels_of(filters):
    size = np.square(filters)
    return float(np.median(size.sum(1) ** 2 / np.square(size).sum(1)))
