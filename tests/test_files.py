"""Files are whole: the new one or the old one, on a full disk and after a kill."""

import ast
import os
import random
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_penalties as kp
import keras_penalties_cli
from keras_penalties import files
from keras_penalties.files import replacing
from keras_penalties_cli import command

pytestmark = pytest.mark.one_backend


@contextmanager
def full_disk(room):
    """No file of this process may become longer than `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_rows(path, size):
    logger = kp.callbacks.TermLogger(path)
    logger.rows = [{"epoch": 0, "batch": n, "code_l1": 0.5} for n in range(size)]
    logger.on_epoch_end(0)


def write_model(path, size):
    with replacing(path) as new:
        keras.Sequential([keras.Input((size,)), keras.layers.Dense(9)]).save(new)


def write_arrays(path, size):
    with replacing(path) as new:
        np.savez_compressed(new, x=np.random.default_rng(0).random(size))


def write_picture(path, size):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().imshow(np.random.default_rng(0).random((size, 2)))
    with replacing(path) as new:
        figure.savefig(new)


def write_folder(path, size):
    pytest.importorskip("safetensors")
    model = kp.models.TopKAutoencoder(size, k=3)
    model.build((None, 7))
    model.to_saelens(path.parent)


WRITERS = {
    "terms.csv": write_rows,
    "model.keras": write_model,
    "digits.npz": write_arrays,
    "loss.png": write_picture,
    "sae_weights.safetensors": write_folder,
}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("room", [0, 2000])
def test_on_a_full_disk_the_old_files_stay(name, room, tmp_path):
    WRITERS[name](tmp_path / name, 5)
    old = content(tmp_path)
    assert name in old
    with full_disk(room), pytest.raises(OSError, match="File too large"):
        WRITERS[name](tmp_path / name, 1000)
    assert content(tmp_path) == old
    WRITERS[name](tmp_path / name, 1000)
    assert content(tmp_path).keys() == old.keys()
    assert content(tmp_path)[name] != old[name]


MOUNTED = """
import pathlib, subprocess, sys, keras_penalties as kp
folder = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "x", folder], check=True)
logger = kp.callbacks.TermLogger(folder / "terms.csv")
try:
    for epoch in range(100):
        logger.rows += [{"epoch": epoch, "batch": batch} for batch in range(500)]
        logger.on_epoch_end(epoch)
        done = (folder / "terms.csv").read_bytes()
except OSError as error:
    assert "No space left" in str(error), error
    assert epoch > 3
    assert [x.name for x in folder.iterdir()] == ["terms.csv"]
    assert (folder / "terms.csv").read_bytes() == done
    print("old")
"""


@pytest.mark.slow
def test_on_a_disk_that_really_is_full(tmp_path, fresh_process):
    alone = ["unshare", "--mount", "--map-root-user"]
    if not sys.platform.startswith("linux") or subprocess.run([*alone, "true"]).stderr:
        pytest.skip("no file system may be mounted here")
    (tmp_path / "small").mkdir()
    words = [*alone, sys.executable, "-c", MOUNTED, str(tmp_path / "small")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "old", done.stderr[-2000:]


@pytest.mark.slow
def test_a_demo_without_room_says_so_and_leaves_the_report(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for file in ("model.keras", "report.html"):
        (tmp_path / file).write_text("old")
    old = content(tmp_path)
    with full_disk(10_000):
        status = command.main(["demo", "--out", str(tmp_path), "--epochs", "1"])
    assert status == 1
    assert "File too large" in capsys.readouterr().err
    assert content(tmp_path) == old


WRITES_ON = """
import importlib.util, itertools, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
for n in itertools.count():
    with files.replacing(sys.argv[2]) as new, new.open("wb") as file:
        for _ in range(100):
            file.write(b"%d" % (n % 10) * 1000)
            file.flush()
    print(n, flush=True)
"""


def assert_whole_after_kills(module, folder, kills=20):
    """A process that writes again and again is killed at random moments."""
    rng, path = random.Random(5), folder / "file.txt"
    for _ in range(kills):
        words = [sys.executable, "-c", WRITES_ON, str(module), str(path)]
        writer = subprocess.Popen(words, stdout=subprocess.PIPE)
        writer.stdout.readline()  # one file is there
        time.sleep(rng.random() * 0.02)
        writer.kill()
        writer.communicate()
        found = path.read_bytes()
        assert len(found) == 100_000
        assert len(set(found)) == 1


def test_after_a_kill_the_file_is_whole(tmp_path):
    assert_whole_after_kills(files.__file__, tmp_path)


def test_the_kills_find_a_file_that_is_written_in_place(tmp_path):
    """Else the test above would prove little."""
    source = Path(files.__file__).read_text()
    inside = source.replace("new = path.with_name(", "new = path or (")
    inside = inside.replace("            os.fsync", "            return; os.fsync")
    (tmp_path / "planted.py").write_text(inside)
    with pytest.raises(AssertionError):
        assert_whole_after_kills(tmp_path / "planted.py", tmp_path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.txt").symlink_to(tmp_path / "file.txt")
    with replacing(tmp_path / "link.txt") as new:
        new.write_text("content")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "file.txt").read_text() == "content"


WRITING = {"save", "savefig", "savez", "savez_compressed", "write_text", "write_bytes"}
SCRATCH = {
    ("archive.py", "unpacked"),
    ("files.py", "new"),
    ("pictures.py", "figure"),
    ("shards.py", "np"),
}
"""The one home itself, and what is written to a temporary folder, to memory, or to a
folder that takes its name when it is whole."""


def writes(call):
    """Whether a call writes a file, or opens one for writing."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "open":
        modes = [a.value for a in ast.walk(call) if isinstance(a, ast.Constant)]
        modes = [m for m in modes if isinstance(m, str) and set(m) <= set("rwaxbt+")]
        return any(set(mode) & set("wax+") for mode in modes)
    return isinstance(call.func, ast.Attribute) and name in WRITING


def unguarded(tree, guarded=False):
    """The calls that write outside of a block `with replacing(...)`."""
    if isinstance(tree, ast.With):
        guarded = guarded or "replacing(" in "".join(map(ast.unparse, tree.items))
    if isinstance(tree, ast.Call) and writes(tree) and not guarded:
        yield tree
    for child in ast.iter_child_nodes(tree):
        yield from unguarded(child, guarded)


def test_every_file_that_the_package_writes_goes_this_way():
    found = []
    for package in (kp, keras_penalties_cli):
        for file in Path(package.__file__).parent.rglob("*.py"):
            for call in unguarded(ast.parse(file.read_text())):
                found.append((file.name, ast.unparse(call.func).split(".")[0]))
    assert set(found) == SCRATCH


@pytest.mark.parametrize("call", ["open(path, 'w')", "a.open('ab')", "np.savez(x)"])
def test_a_call_that_writes_in_place_is_found(call):
    tree = f"with other(path) as new:\n    {call}\nwith replacing(p) as q:\n    {call}"
    assert len(list(unguarded(ast.parse(tree)))) == 1
    assert not list(unguarded(ast.parse("open(path, 'rb'), open(path), a.open()")))


def test_the_command_line_says_that_the_disk_is_full():
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "keras_penalties_cli", "list"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    message = f"keras-penalties: [Errno 28] {os.strerror(28)}\n"
    assert done.stderr.decode() == message
