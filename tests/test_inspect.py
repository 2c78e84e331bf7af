"""`keras-penalties inspect`: right on our files and Keras' own, safe on any other."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import hostile_files
import keras
import numpy as np
import pytest

import keras_penalties as kp
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.registry import registered
from keras_penalties_cli import command
from keras_penalties_cli.inspection import Refused, hosts, inspected, printed, weights

pytestmark = pytest.mark.one_backend

X, Y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")


def report_of(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    return inspected(path)


def texts(report, kind):
    return " ".join(note["text"] for note in report["notes"] if note["kind"] == kind)


def as_inspected(report):
    return [(t["name"], t["target"], t["host"], t["acts"]) for t in report["terms"]]


def as_terms(model):
    return [(t.name, t.target, t.host, t.acts) for t in kp.terms(model)]


def assert_as_terms(report, model):
    """What `kp.terms` says of the live model is what the file says."""
    assert as_inspected(report) == as_terms(model)
    for shown, term in zip(report["terms"], kp.terms(model), strict=True):
        strength = shown["strength"]
        now = strength["now"] if term.host != "slot" else strength["built_with"]
        if term.strength is not None and strength["step"] is None:
            assert now == pytest.approx(term.strength, rel=1e-6)
    assert report["unread"] == []


def moving_model():
    """Targets, ramps, sums, slots, one layer name twice, and a proximal step."""
    x = keras.Input((3,))
    sums = kp.penalties.L1(kp.Target(1.0)) + kp.penalties.MCP(0.2)
    ramp = kp.penalties.KLSparsity(kp.strengths.LinearRamp(0.0, 1.0, 10))
    dense = keras.layers.Dense(
        2, "sigmoid", name="enc", bias_regularizer=kp.penalties.L2(0.3)
    )
    h = kp.layers.Penalized(dense, weights={"kernel": sums}, outputs=ramp)(x)
    inner = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, name="enc"),
            kp.layers.Penalized(
                keras.layers.Dense(2, name="mid"), {"kernel": "l2(0.5)"}, name="p"
            ),
            kp.layers.ActivityPenalty("l1(0.1) + l1(0.2)", name="code"),
        ],
        name="inner",
    )
    slots = {"kernel_regularizer": keras.regularizers.L2(0.1)}
    out = keras.layers.Dense(1, name="out", activity_regularizer="l1", **slots)
    model = keras.Model(x, out(inner(keras.layers.ReLU()(h)) + 1.0))
    adam = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    sparse = kp.optimizers.Proximal(adam, {"inner/enc/kernel": "l1(0.1) + l2(0.2)"})
    model.compile(sparse, keras.losses.Huber(3.0), loss_weights=0.5)
    model.fit(X, Y, batch_size=2, verbose=0)
    kp.set_strength(model, "code_l1", 0.7)
    kp.set_strength(model, "inner_enc_kernel_l2", 0.9)
    return model


def test_a_model_with_all_kinds_of_hosts_and_strengths(tmp_path):
    model = moving_model()
    report = report_of(model, tmp_path)
    assert_as_terms(report, model)
    by_name = {t["name"]: t["strength"] for t in report["terms"]}
    assert by_name["enc_output_kl_sparsity"]["text"] == "LinearRamp, step 4"
    assert by_name["code_l1"]["text"] == "0.7, built with 0.1"
    assert by_name["code_l1_2"]["text"] == "0.2"
    assert by_name["inner_enc_kernel_l2"]["text"] == "0.9, built with 0.2"
    assert "(Target)" in by_name["enc_kernel_l1"]["text"]
    assert [o["class"] for o in report["optimizers"]] == ["Proximal", "AdamW"]
    assert report["optimizers"][1]["weight_decay"] == 0.1
    assert report["losses"] == [{"output": None, "loss": "Huber()", "weight": 0.5}]
    assert "`delta`" in texts(report, "lost")
    assert "import keras_penalties," in texts(report, "import")
    text = printed(report)
    assert "0.7, built with 0.1" in text
    assert "weight decay 0.1" in text


@pytest.mark.parametrize("decay", [1e-4, 0.0])
def test_a_sparse_autoencoder_shows_its_terms(tmp_path, decay):
    model = kp.models.SparseAutoencoder(hidden_units=4, weight_decay=decay)
    model.compile("adam", loss="half_sum_squared_error")
    model.fit(X, X, verbose=0)
    kp.set_strength(model, "code_kl_sparsity", 0.5)
    report = report_of(model, tmp_path)
    assert_as_terms(report, model)
    assert {t["strength"]["text"] for t in report["terms"]} >= {"0.5, built with 3"}
    assert not texts(report, "unseen")
    assert "import keras_penalties," in texts(report, "import")


DICTIONARIES = {
    "ReLUAutoencoder": lambda: kp.models.ReLUAutoencoder(4, "l1(0.1) + l2(0.2)"),
    "TopKAutoencoder": lambda: kp.models.TopKAutoencoder(4, 2),
    "BatchTopKAutoencoder": lambda: kp.models.BatchTopKAutoencoder(4, 2, aux=None),
    "MatryoshkaAutoencoder": lambda: kp.models.MatryoshkaAutoencoder(4, 2, [1, 3]),
    "JumpReLUAutoencoder": lambda: kp.models.JumpReLUAutoencoder(4, kp.Target(2.0)),
    "GatedAutoencoder": lambda: kp.models.GatedAutoencoder(4),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n[:4] in ("ReLU", "TopK", "Batc")))
        for n in DICTIONARIES
    ],
)
def test_a_dictionary_shows_its_terms(tmp_path, name):
    model = DICTIONARIES[name]()
    model.compile("adam", loss="half_sum_squared_error")
    model.fit(X, X, verbose=0)
    report = report_of(model, tmp_path)
    assert_as_terms(report, model)
    assert not texts(report, "unseen")


def test_losses_that_are_learned(tmp_path):
    x, y = keras.Input((3,)), keras.Input((1,))
    guess = keras.layers.Dense(1)(x)
    for n, name in enumerate(["mean_squared_error", "mean_absolute_error"]):
        strength = kp.strengths.Learned("auto" if n else 0.5)
        guess = kp.layers.AddLoss(name, strength, name=f"loss_{n}")(guess, y_true=y)
    model = keras.Model([x, y], guess)
    model.compile("sgd")
    model.fit([X, Y], verbose=0)
    assert_as_terms(report_of(model, tmp_path), model)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_pattern_that_fits_several_weights(tmp_path, scaled):
    layers = [keras.layers.Dense(2, name=name) for name in "ab"]
    model = keras.Sequential([keras.Input((3,)), *layers], name="m")
    patterns = {"./kernel": "l1(0.1) + l2(0.2)"}
    sparse = kp.optimizers.Proximal(keras.optimizers.Adam(0.01), patterns)
    if scaled:
        sparse = keras.optimizers.LossScaleOptimizer(sparse)
    model.compile(sparse, "mse")
    model.fit(X, X[:, :2], verbose=0)
    kp.set_strength(model, "a_kernel_l1", 0.5)
    kp.set_strength(model, "b_kernel_l1", 0.5)
    report = report_of(model, tmp_path)
    assert [(t["target"], t["strength"]["text"]) for t in report["terms"]] == [
        ("./kernel", "0.5, built with 0.1"),
        ("./kernel", "0.2"),
    ]
    assert report["unread"] == []
    kp.set_strength(model, "b_kernel_l1", 0.7)
    report = report_of(model, tmp_path)
    assert report["terms"][0]["strength"]["now"] is None
    assert "._kernel_l1" in report["unread"][0]


def test_a_penalised_model_and_arrays_in_the_weights(tmp_path):
    near = kp.penalties.ToReference(0.25, np.ones((40, 30)))
    start = kp.penalties.ToReference(0.5, "start")
    inner = [keras.layers.Dense(40, name="b"), keras.layers.Dense(30, name="c")]
    inner = keras.Sequential([keras.Input((2,)), *inner], name="in")
    inner.layers[0].trainable = False
    base = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a"), inner])
    held = kp.penalties.L1(kp.Target(1.0))
    rules = {
        keras.layers.Dense: "l2(0.1) + mcp(0.3)",
        "in/c": {"kernel": near, "bias": held},
        "in": {"outputs": "l1(0.1)"},
    }
    model = kp.penalize(base, rules)
    model.compile(kp.optimizers.Penalizing("adam", {"a/kernel": start}), "mse")
    model.fit(X, np.ones((8, 30)), verbose=0)
    kp.set_strength(model, "a_kernel_mcp", 0.7)
    report = report_of(model, tmp_path)
    assert [t[1:] for t in as_inspected(report)[:-1]] == [
        t[1:] for t in as_terms(model)[:-1]
    ]
    shown = {t["name"]: t["strength"]["text"] for t in report["terms"]}
    assert shown["a_kernel_mcp"] == "0.7, built with 0.3"
    assert shown["in_c_kernel_to_reference"] == "0.25"
    assert "(Target)" in shown["in_c_bias_l1"]
    assert report["terms"][-1]["strength"]["now"] == 0.5
    assert "<array of shape [40, 30]>" in printed(report)
    assert report["unread"] == []
    assert sum(not t["acts"] for t in report["terms"]) == 2

    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config, data = map(archive.read, ["config.json", "model.weights.h5"])
    (tmp_path / "w.h5").write_bytes(data)
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        del file["layers/model_penalty/vars/2"]
    fewer = (tmp_path / "w.h5").read_bytes()
    report = inspected(hostile_files.write(tmp_path / "fewer.keras", config, fewer))
    assert "the weights lack them" in report["unread"][0]


def test_frozen_weights_are_said_to_be(tmp_path):
    adapted = keras.layers.Dense(3, name="adapted")
    adapted.build((None, 3))
    adapted.enable_lora(1)
    frozen = keras.layers.Dense(3, name="frozen", kernel_regularizer="l2")
    frozen.trainable = False
    block = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="a"), frozen], name="block"
    )
    some = {"kernel": "l1(0.1)"}
    model = keras.Sequential(
        [
            keras.Input((3,)),
            kp.layers.Penalized(adapted, {**some, "lora_kernel_a": "l2(0.1)"}),
            kp.layers.Penalized(
                block, {"a/kernel": "l1(0.1)", "frozen/kernel": "mcp(0.1)"}
            ),
            kp.layers.Frozen(
                kp.layers.Penalized(keras.layers.Dense(3, name="t"), some)
            ),
        ]
    )
    report = report_of(model, tmp_path)
    assert as_inspected(report) == as_terms(model)
    assert not all(t["acts"] for t in report["terms"])
    assert "no: frozen" in printed(report)


HOSTS = {
    e.obj.__name__: e.obj
    for e in registered("layer", "keras_penalties")
    if issubclass(e.obj, PenaltyLayer)
}


def test_every_class_that_hosts_terms_is_known():
    assert set(hosts.HOSTS) == set(HOSTS)
    optimizers = registered("optimizer", "keras_penalties")
    assert set(hosts.WRAPPERS) == {e.obj.__name__ for e in optimizers}
    models = registered("model", "keras_penalties")
    assert {e.obj.__name__ for e in models} == {"SparseAutoencoder", *DICTIONARIES}


def test_the_terms_within_hold_zeros(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")])
    sparse = kp.optimizers.Proximal("sgd", {"a/kernel": "l1(0.1)"})
    model.compile(kp.optimizers.HoldZeros(sparse), "mse")
    model.fit(X, X[:, :2], verbose=0)
    (term,) = report_of(model, tmp_path)["terms"]
    assert (term["target"], term["strength"]["text"]) == ("a/kernel", "0.1")


@pytest.mark.parametrize("cls", HOSTS.values(), ids=HOSTS)
def test_the_terms_of_each_layer(tmp_path, cls):
    for n in range(len(cls.examples())):
        example = cls.examples()[n]  # some of one list share a layer
        x = keras.Input((3,))
        arguments = getattr(example, "example_inputs", lambda x: {"inputs": x})(x)
        model = keras.Model(x, example(**arguments))
        assert_as_terms(report_of(model, tmp_path), model)


def plain_model():
    x = keras.Input((8, 8, 1), name="image")
    some = {"kernel_regularizer": keras.regularizers.L1L2(0.1, 0.2)}
    h = keras.layers.Conv2D(2, 3, name="conv2d", **some)(x)
    norm = "batch_normalization"
    h = keras.layers.BatchNormalization(gamma_regularizer="l2", name=norm)(h)
    h = keras.layers.Reshape((6, 12))(h)
    h = keras.layers.LSTM(3, recurrent_regularizer="l1", name="lstm")(h)
    a, b = (keras.layers.Dense(2, name=name)(h) for name in "ab")
    model = keras.Model(x, {"a": a, "b": b})
    losses = {"a": "mse", "b": keras.losses.SparseCategoricalCrossentropy(axis=1)}
    model.compile("rmsprop", losses, loss_weights={"a": 0.25, "b": 2.0})
    return model


def test_a_plain_keras_model(tmp_path):
    report = report_of(plain_model(), tmp_path)
    assert [(t["name"], t["penalty"]) for t in report["terms"]] == [
        ("conv2d_kernel_l1l2", "L1L2(l1=0.1, l2=0.2)"),
        ("batch_normalization_gamma_l2", "L2(l2=0.01)"),
        ("lstm_recurrent_kernel_l1", "L1(l1=0.01)"),
    ]
    assert [(x["output"], x["weight"]) for x in report["losses"]] == [
        ("a", 0.25),
        ("b", 2.0),
    ]
    assert "SparseCategoricalCrossentropy's `axis`" in texts(report, "lost")
    assert not texts(report, "import")
    assert report["unread"] == []


@keras.saving.register_keras_serializable(package="foreign")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def test_what_keras_will_lose_or_refuse(tmp_path):
    net = Net()
    net.compile("adam", "mse")
    net.fit(X, Y, verbose=0)
    report = report_of(net, tmp_path)
    assert "Net overrides `compile`" in texts(report, "lost")
    assert "Net is code of its own" in texts(report, "unseen")
    assert "the code of 'foreign'" in texts(report, "import") or (
        "import foreign," in texts(report, "import")
    )
    layers = [keras.Input((3,)), keras.layers.Lambda(lambda x: x), Unregistered()]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", lambda y, p: keras.ops.mean(y - p))
    report = report_of(model, tmp_path)
    assert "`safe_mode=False`" in texts(report, "code")
    assert "custom_objects={'Unregistered': ...}" in texts(report, "import")
    assert "Unregistered is code of its own" in texts(report, "unseen")


def test_damaged_weights_leave_a_partial_answer(tmp_path, capsys):
    good = tmp_path / "good.keras"
    moving_model().save(good)
    with zipfile.ZipFile(good) as archive:
        config = archive.read("config.json")
    bad = hostile_files.write(tmp_path / "bad.keras", config, b"no HDF5")
    assert command.main(["inspect", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "code_l1                 built with 0.1" in out
    assert "model.weights.h5 is damaged" in out


def test_weights_alone_old_files_and_folders(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, kernel_regularizer="l2")]
    )
    model.compile("sgd", "mse")
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(Refused, match="weights alone"):
        inspected(tmp_path / "m.weights.h5")
    model.save(tmp_path / "old.h5")
    report = inspected(tmp_path / "old.h5")
    assert [t["penalty"] for t in report["terms"]] == ["L2(l2=0.01)"]
    assert report["losses"][0]["loss"] == "'mse'"
    assert "Keras 2" in report["unread"][0]
    with pytest.raises(Refused, match="folder without"):
        inspected(tmp_path)
    with pytest.raises(Refused, match="no file of that name"):
        inspected(tmp_path / "none.keras")


FRESH = """
import json, resource, sys, time
from keras_penalties_cli import command
import contextlib, io

def spent():
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in uses)

for path in sys.stdin.read().split():
    for more in ([], ["--json"]):
        out, err, start = io.StringIO(), io.StringIO(), spent()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = command.main(["inspect", path, *more])
            except BaseException as error:
                status = repr(error)
        if more and status in (0, 1):
            json.loads(out.getvalue(), parse_constant=lambda name: 1 / 0)
        seconds = spent() - start
        row = [path, status, seconds, out.getvalue()[:2000], err.getvalue()[:2000]]
        print(json.dumps(row), flush=True)
# Not `ru_maxrss`, which a process has from the one that started it.
with open("/proc/self/status") as file:
    peak = [int(x.split()[1]) / 1024 for x in file if x.startswith("VmHWM")]
peak.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
heavy = {"keras", "tensorflow", "jax", "torch", "numpy", "h5py", "keras_penalties"}
print(json.dumps([peak, sorted(heavy & set(sys.modules))]))
"""


def in_a_fresh_process(paths):
    """One row for each call, the peaks of memory in MiB, and what was imported."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *rows, (peaks, imported) = map(json.loads, done.stdout.splitlines())
    return rows, peaks, imported


def assert_answers(paths):
    rows, peaks, imported = in_a_fresh_process(paths)
    assert len(rows) == 2 * len(paths)
    for path, status, seconds, out, err in rows:
        assert status in (0, 1), (path, status)
        assert status == 0 or len(out + err) > 20, (path, "without a reason")
        assert "Traceback" not in out + err
        assert "\x1b" not in out + err, path
        assert seconds < 5.0, (path, seconds)  # of the processor: beyond, it hangs
    assert max(peaks) < 500
    assert imported == []
    return {Path(path).stem: (status, out + err) for path, status, *_, out, err in rows}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.keras"
    moving_model().save(path)
    return path


def test_a_good_file_starts_no_backend(good):
    assert assert_answers([good])["good"][0] == 0


def test_twenty_damaged_files(good, tmp_path):
    files = itertools.islice(hostile_files.make(tmp_path, good), 0, 160, 8)
    assert_answers(list(files))


@pytest.mark.slow
def test_two_hundred_damaged_and_hostile_files(good, tmp_path):
    files = list(hostile_files.make(tmp_path, good))
    assert len(files) >= 200
    copied = tmp_path / "good_again.keras"
    copied.write_bytes(good.read_bytes())
    answers = assert_answers([*files, copied])
    refused = ["deep_lists", "many_values", "many_objects", "bomb", "crowd", "text"]
    refused += ["config_says_4_gb", "weights_bomb", "h5_huge", "h5_outside"]
    assert [answers[name][0] for name in refused] == [1] * len(refused)
    assert [answers[name][0] for name in ("packed", "good_again")] == [0, 0]


def test_of_weights_only_what_lies_in_the_file_is_read(tmp_path):
    numbers = np.array([1.0, 2.0, 3.0], "f4")
    numbers.tofile(tmp_path / "outside")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = numbers
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "data", (3,))
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/a/vars")
        group["0"], group["7"] = numbers, np.float32(5)
        group["1"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "data")
        group["2"] = h5py.SoftLink("/layers/a/vars/0")
        group.create_virtual_dataset("3", layout)
        outside = [(str(tmp_path / "outside"), 0, 12)]
        group.create_dataset("4", shape=(3,), dtype="f4", external=outside)
        group.create_dataset("5", data=numbers, compression="gzip")
        group["6"] = np.zeros(10**5, "f4")
        assert all(np.all(group[name][()] == numbers) for name in "012345")
    place = weights.Place(path, 0, path.stat().st_size)
    (found,) = weights.stored(place, [("layers/a", "")])
    assert found.arrays == {0: [1.0, 2.0, 3.0], 7: 5.0}
    (found,) = weights.stored(place, [("layers/none", "none")])
    assert found.arrays == {}


def test_a_crash_of_the_reader_is_a_missing_answer(tmp_path, monkeypatch):
    place = weights.Place(tmp_path / "none", 0, 10)
    assert weights.stored(place, [("a", "a")]) is None
    crash = tmp_path / "crash.py"
    crash.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(weights, "_READER", crash)
    assert weights.stored(place, [("a", "a")]) is None
    crash.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(weights, "SECONDS", 0.5)
    assert weights.stored(place, [("a", "a")]) is None
