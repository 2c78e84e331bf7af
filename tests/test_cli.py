"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import keras_penalties as kp
from keras_penalties.registry import registered, snake_case
from keras_penalties_cli import catalogue, command

pytestmark = pytest.mark.one_backend

OWN = list(registered(package="keras_penalties"))
READ = catalogue.entries()


def run(*argv: str) -> int:
    """The exit status, also where argparse itself leaves."""
    try:
        return command.main(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def rows_of(text):
    head, *rows = text.splitlines()
    assert head.split() == ["name", "Keras", "key", "formula", "or", "summary"]
    return rows


def test_the_catalogue_is_the_registry():
    """Read from the source, it says what the imported package says."""
    found = {(e.key, e.name, e.kind, e.where, e.doc) for e in READ}
    assert found == {
        (e.key, e.name, e.kind, e.obj.__module__, inspect.cleandoc(e.obj.__doc__))
        for e in OWN
    }
    assert len(READ) == len(OWN)
    assert catalogue.version() == kp.__version__
    names = [e.obj.__name__ for e in OWN]
    assert [catalogue.snake_case(n) for n in names] == [snake_case(n) for n in names]


@pytest.mark.parametrize("entry", OWN, ids=lambda e: e.name)
def test_the_catalogue_has_the_constructors_arguments(entry):
    shown = next(e.signature for e in READ if e.key == entry.key)
    parameters = inspect.signature(entry.obj).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    signature = f"{entry.obj.__name__}{inspect.Signature(bare)}"
    assert shown == signature


def test_list_shows_every_registered_object_once(capsys):
    assert run("list") == 0
    rows = [row.split()[:2] for row in rows_of(capsys.readouterr().out)]
    assert {tuple(row) for row in rows} == {(e.name, e.key) for e in OWN}
    assert len(rows) == len(OWN)


def test_list_of_one_kind_in_columns(capsys):
    assert run("list", "--kind", "penalty") == 0
    lines = rows_of(capsys.readouterr().out)
    assert len({line.index("keras_penalties>") for line in lines}) == 1
    l1 = next(line for line in lines if line.startswith("l1 "))
    assert l1.split() == ["l1", "keras_penalties>L1", "Σ|x|"]
    assert not any("HalfSum" in line for line in lines)


@pytest.mark.parametrize("kind", sorted({e.kind for e in OWN}))
def test_list_takes_every_kind(capsys, kind):
    assert run("list", "--kind", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["key"] for r in rows} == {e.key for e in OWN if e.kind == kind}


@pytest.mark.parametrize("text", ["elastic", "ElasticNET", "(1 − l1_ratio)", "Zou"])
def test_list_finds_text_in_name_key_or_docstring(capsys, text):
    assert run("list", text) == 0
    assert "keras_penalties>ElasticNet" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["elastic_net", "ElasticNet"])
def test_show_explains_one_name(capsys, name):
    assert run("show", name) == 0
    out = capsys.readouterr().out
    assert "ElasticNet(strength=0.01, l1_ratio=0.5)" in out
    for section in ("Args:", "Example:", "Source: Zou"):
        assert section in out
    assert run("show", name, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["formula"]
    assert row["where"] == "keras_penalties.penalties.separable"


def test_no_match_is_an_error_on_stderr(capsys):
    assert run("list", "nothing of the kind") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "keras-penalties: no name contains 'nothing of the kind'\n"
    assert run("show", "elastic_nut") == 1
    assert "did you mean elastic_net" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: COMMAND"),
        (["list", "--kind", "nonsense"], "invalid choice: 'nonsense'"),
        (["demo", "--epochs", "0"], "expected 1 or more, received '0'"),
        (["inspect"], "required: file"),
        (["unknown"], "invalid choice: 'unknown'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_reason(capsys, argv, words):
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_the_formula_follows_a_colon_or_opens_a_paragraph():
    long = "One `thing`\non two lines: `a +\nb`.\n\n`c` opens a paragraph."
    later = "With `code`, but no formula.\n\n`c` is it."
    absent = "With `code`, but no formula.\n\nArgs:\n    x: `c`."
    assert [catalogue.formula(x) for x in (long, later, absent)] == ["a + b", "c", ""]
    assert catalogue.summary(long) == "One `thing` on two lines: `a + b`."


def test_no_command_but_the_demo_starts_a_backend():
    script = (
        "import sys; from keras_penalties_cli.command import main\n"
        "main(['list']); main(['show', 'l1'])\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "heavy = {'keras', 'keras_penalties', 'numpy', 'tensorflow', 'jax', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command_ = [sys.executable, "-c", script]
    done = subprocess.run(command_, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["keras_penalties", "keras_penalties_cli"])
def test_as_a_module_clean_on_stdout_and_safe_without_a_reader(module):
    words = [sys.executable, "-m", module]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    left = subprocess.Popen([*words, "list"], **pipes)
    left.stdout.close()  # as `| head` does, only sooner
    shown = subprocess.run([*words, "--version"], check=True, **pipes)
    assert shown.stdout == f"keras-penalties {kp.__version__}\n"
    assert left.wait() == 141
    assert "Error" not in left.stderr.read()


def test_demo_says_which_backend_is_missing(capsys, monkeypatch, tmp_path):
    def started(out, epochs):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr("keras_penalties.demo.run", started)
    assert run("demo", "--out", str(tmp_path)) == 1
    assert "KERAS_BACKEND to tensorflow, jax or torch" in capsys.readouterr().err


def test_demo_says_at_once_that_it_cannot_write(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run("demo", "--out", str(tmp_path / "file")) == 1
    assert "File exists" in capsys.readouterr().err
