"""What a dictionary's report says, beside NumPy and scikit-learn, and its page."""

import html
import re

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import cosine_similarity

import keras_penalties as kp

RNG = np.random.default_rng(0)
DIRECTIONS = RNG.normal(size=(12, 6)).astype("float32")
DEAD = [2, 7]
ALIVE = np.isin(np.arange(12), DEAD, invert=True).astype("float32")
X = RNG.normal(0.5, 1.0, size=(200, 6)).astype("float32")


class Known:
    """A code that NumPy can compute: no unit is a layer."""

    name = "known"
    dictionary = DIRECTIONS

    def encode(self, x):
        z = ops.matmul(x, ops.convert_to_tensor(DIRECTIONS.T))
        z = ops.where(z > 1.0, z, ops.zeros_like(z))
        return z * ops.convert_to_tensor(ALIVE)


class WithDecoder(Known):
    def decode(self, code):
        return ops.matmul(code, ops.convert_to_tensor(0.1 * DIRECTIONS))


CODE = np.where(X @ DIRECTIONS.T > 1.0, X @ DIRECTIONS.T, 0.0)
CODE[:, DEAD] = 0.0


@pytest.fixture(scope="module")
def report():
    return kp.dictionary_report(WithDecoder(), X, examples=5, batch_size=33)


def test_figures_are_numpys_and_sklearns(report):
    rebuilt = CODE @ (0.1 * DIRECTIONS)
    expected = r2_score(X, rebuilt, multioutput="variance_weighted")
    assert report.rows == 200
    assert report.units == 12
    np.testing.assert_array_equal(report.density, np.mean(CODE != 0, axis=0))
    np.testing.assert_allclose(report.mean_activation, CODE.mean(axis=0), rtol=1e-5)
    assert report.l0 == pytest.approx(np.count_nonzero(CODE) / 200)
    assert report.dead.tolist() == DEAD
    assert report.explained_variance == pytest.approx(expected, rel=1e-5)
    assert report.mse == pytest.approx(mean_squared_error(X, rebuilt), rel=1e-5)
    cosines = cosine_similarity(DIRECTIONS)
    np.fill_diagonal(cosines, -np.inf)
    np.testing.assert_array_equal(report.neighbour, cosines.argmax(axis=1))
    np.testing.assert_allclose(report.neighbour_cosine, cosines.max(1), rtol=1e-5)


def test_the_figures_are_those_of_the_metrics(report):
    metrics = (
        kp.metrics.ActiveUnits(),
        kp.metrics.DeadShare(),
        kp.metrics.ExplainedVariance(),
    )
    l0, dead, variance = metrics
    for m in (l0, dead):
        m.update_state(CODE)
    variance.update_state(X, CODE @ (0.1 * DIRECTIONS))
    found = [report.l0, len(report.dead) / 12, report.explained_variance]
    assert found == pytest.approx([float(m.result()) for m in metrics], rel=1e-5)


def test_top_rows_are_the_largest_activations(report):
    for unit in range(12):
        order = np.argsort(-CODE[:, unit], kind="stable")[:5]
        live = CODE[order, unit] > 0
        expected = np.where(live, order, -1)
        np.testing.assert_array_equal(report.top_rows[unit], expected)
        values = np.where(live, CODE[order, unit], 0.0)
        np.testing.assert_allclose(report.top_values[unit], values, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 7, 40])
def test_of_equal_activations_the_earlier_row_is_kept(size):
    """However the rows are cut into batches, and of signed codes by size."""
    code = RNG.integers(-2, 3, size=(40, 12)).astype("float32")

    class Signed:
        dictionary = np.eye(12)

        def encode(self, x):
            return x

    found = kp.dictionary_report(Signed(), code, examples=6, batch_size=size)
    order = np.argsort(-np.abs(code), axis=0, kind="stable")[:6].T
    np.testing.assert_array_equal(found.top_rows, order)
    np.testing.assert_array_equal(
        found.top_values, np.take_along_axis(code.T, order, axis=1)
    )


class Rows(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return X[100 * i : 100 * (i + 1)], X[:100]


@pytest.mark.parametrize(
    "data",
    [
        lambda: X,
        lambda: ops.convert_to_tensor(X),
        lambda: np.split(X, [7, 90]),
        lambda: ((x, x) for x in np.split(X, [0, 150])),
        Rows,
    ],
)
def test_all_kinds_of_data(data, report):
    found = kp.dictionary_report(WithDecoder(), data(), examples=5, images_shape=(2, 3))
    np.testing.assert_array_equal(found.top_rows, report.top_rows)
    assert found.l0 == report.l0
    assert found.explained_variance == pytest.approx(report.explained_variance)
    assert set(found.examples) == set(np.unique(found.top_rows)) - {-1}
    for index, row in found.examples.items():
        np.testing.assert_array_equal(row, X[index])


def test_a_threshold_says_which_units_are_active():
    found = kp.dictionary_report(Known(), X, threshold=3.0)
    np.testing.assert_array_equal(found.density, np.mean(CODE > 3.0, axis=0))
    assert found.explained_variance is found.mse is None
    assert np.all((found.top_rows >= 0) == (found.top_values > 3.0))


def test_shown_units_are_spread_over_the_densities(report):
    live = [u for u in np.argsort(-report.density, kind="stable") if u not in DEAD]
    assert report.shown == tuple(live)
    found = kp.dictionary_report(Known(), X, units=3)
    assert found.shown == (live[0], live[4], live[9])
    assert kp.dictionary_report(Known(), X, units=[7, 0]).shown == (7, 0)


def test_mmcs_is_sklearns():
    known = RNG.normal(size=(9, 6))
    expected = cosine_similarity(known, DIRECTIONS).max(axis=1).mean()
    assert kp.mmcs(DIRECTIONS, known) == pytest.approx(expected, rel=1e-6)
    assert kp.mmcs(DIRECTIONS, 3.0 * DIRECTIONS[::-1]) == pytest.approx(1.0)
    assert kp.mmcs(1e-30 * DIRECTIONS, 1e30 * DIRECTIONS) == pytest.approx(1.0)
    assert kp.mmcs(np.eye(3), -np.ones((1, 3))) == pytest.approx(-(3**-0.5))
    assert kp.mmcs(np.zeros((1, 3)), np.eye(3)) == 0.0
    found = kp.dictionary_report(Known(), X, known=known)
    assert found.mmcs == pytest.approx(expected, rel=1e-6)


MODELS = {
    "topk": lambda: kp.models.TopKAutoencoder(10, k=2, seed=0),
    "scaled": lambda: kp.models.ReLUAutoencoder(10, "l1(0.1)", unit_norm=False),
    "ng": lambda: kp.models.SparseAutoencoder(10),
    "bias_unit": lambda: kp.models.SparseAutoencoder(10, 0.0, 0.0, bias_unit=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_this_package(name):
    """Their dictionary is what one unit more or less changes before the output."""
    x = RNG.random((30, 6)).astype("float32")
    model = MODELS[name]()
    model(x)
    found = kp.dictionary_report(model, x, threshold=0.01)
    none, one = (np.zeros((1, 10), "float32") for _ in range(2))
    one[0, 3] = 1.0
    before, after = (ops.convert_to_numpy(model.decode(c))[0] for c in (none, one))
    if name in ("ng", "bias_unit"):
        before, after = (np.log(p / (1 - p)) for p in (before, after))
    assert found.dictionary.shape == (10, 6)
    np.testing.assert_allclose(after - before, found.dictionary[3], atol=1e-5)
    expected = r2_score(x, model.predict(x, verbose=0), multioutput="variance_weighted")
    assert found.explained_variance == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("model", {"model": keras.Sequential([keras.layers.Dense(2)])}),
        (
            "model",
            {"model": type("Other", (Known,), {"dictionary": np.ones((3, 6))})()},
        ),
        ("model", {"model": type("Bad", (Known,), {"dictionary": np.ones(6)})()}),
        ("data", {"data": X[:, :4]}),
        ("data", {"data": X[0]}),
        ("data", {"data": (X, X)}),
        ("data", {"data": X[:0]}),
        ("data", {"data": iter(())}),
        ("data", {"data": np.full((4, 6), np.nan)}),
        ("data", {"data": 3}),
        ("known", {"known": np.ones((2, 5))}),
        ("known", {"known": np.ones(6)}),
        ("units", {"units": [12]}),
        ("units", {"units": -1}),
        ("examples", {"examples": 0}),
        ("images_shape", {"images_shape": (3, 3)}),
        ("images_shape", {"images_shape": (3, 1, 2)}),
        ("names", {"names": ["a", "b"]}),
        ("names", {"names": "a" * 200}),
        ("threshold", {"threshold": -1.0}),
        ("batch_size", {"batch_size": 0}),
    ],
)
def test_what_is_refused(argument, options):
    with pytest.raises(ValueError, match=f"argument `{argument}`"):
        kp.dictionary_report(**{"model": Known(), "data": X, **options})


def test_text_and_notebook(report):
    text, table = str(report), report._repr_html_()
    for word in ("L0", "explained variance", "2 (16.7%)", f"{report.l0:.4g}"):
        assert word in text
        assert word in table
    assert repr(report) == "<DictionaryReport of 12 units on 200 rows>"


HOSTILE = '</title><script src="http://evil">\'&'


class Hostile(WithDecoder):
    name = HOSTILE


@pytest.mark.one_backend
@pytest.mark.parametrize("images_shape", [None, (2, 3), (1, 2, 3), (6, 1, 1)])
def test_the_page_is_whole_and_harmless(tmp_path, images_shape):
    pytest.importorskip("matplotlib")
    path = tmp_path / "report.html"
    path.write_text("the old one")
    names = [f"{i} {HOSTILE}" for i in range(200)]
    found = kp.dictionary_report(
        Hostile(),
        X,
        path,
        known=DIRECTIONS[:2],
        units=[0, 7],
        examples=2,
        images_shape=images_shape,
        names=names,
    )
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    page = path.read_text(encoding="utf-8")
    assert page.endswith("</body></html>\n")
    assert "<script" not in page
    assert HOSTILE not in page
    sources = re.findall(r'(?:src|href)="([^"]*)', page)
    assert all(s.startswith("data:image/png;base64,iVBOR") for s in sources)
    small = 0 if images_shape is None else 2 + 2 + 1
    assert len(sources) == 4 + small
    shown = html.unescape(page)
    for index in found.top_rows[0]:
        assert f"{index} {HOSTILE}" in shown
    assert f"Dead units: {len(DEAD)} of 12" in page


def test_a_failure_leaves_the_old_page(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    path = tmp_path / "report.html"
    path.write_text("the old one")
    with pytest.raises(ValueError, match="argument `data`"):
        kp.dictionary_report(Known(), X[:0], path)
    assert path.read_text() == "the old one"


@pytest.mark.one_backend
@pytest.mark.parametrize("density", ["none", "all", "one"])
def test_pictures_of_extremes(tmp_path, density):
    """All units dead, none dead, and a dictionary of one unit."""
    pytest.importorskip("matplotlib")
    units = 1 if density == "one" else 6

    class Extreme:
        dictionary = np.eye(6)[:units]

        def encode(self, x):
            return 0.0 * x if density == "none" else 0.0 * x[:, :units] + 1.0

    path = tmp_path / "report.html"
    found = kp.dictionary_report(Extreme(), X, path, images_shape=(2, 3))
    assert found.l0 == (0 if density == "none" else units)
    assert path.stat().st_size > 10_000
    assert ("Dead units" in path.read_text()) == (density == "none")


def test_without_matplotlib_nothing_is_computed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    rows = iter([X])
    with pytest.raises(ImportError, match=r"keras-penalties\[demo\]"):
        kp.dictionary_report(Known(), rows, tmp_path / "report.html")
    assert next(rows) is X
    assert kp.dictionary_report(Known(), X).rows == 200
