"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_penalties import __version__, cli
from keras_penalties.registry import registered


def run(*argv: str) -> int:
    """The exit status, also where argparse itself leaves."""
    try:
        return cli.main(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_list_shows_every_registered_object_once(capsys):
    assert run("list") == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert {tuple(row) for row in rows} == {(e.name, e.key) for e in registered()}
    assert len(rows) == len(list(registered()))


def test_list_of_one_kind_in_columns(capsys):
    assert run("list", "--kind", "penalty") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index("keras_penalties>") for line in lines}) == 1
    l1 = next(line for line in lines if line.startswith("l1 "))
    assert l1.split() == ["l1", "keras_penalties>L1", "Σ|x|"]
    assert not any("HalfSum" in line for line in lines)


@pytest.mark.parametrize("text", ["elastic", "ElasticNET", "(1 − l1_ratio)", "Zou"])
def test_list_finds_text_in_name_key_or_docstring(capsys, text):
    assert run("list", text) == 0
    assert "keras_penalties>ElasticNet" in capsys.readouterr().out


def test_no_match_is_an_error_on_stderr(capsys):
    assert run("list", "nothing of the kind") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "keras-penalties: no name contains 'nothing of the kind'\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: COMMAND"),
        (["list", "--kind", "nonsense"], "invalid choice: 'nonsense'"),
        (["demo", "--epochs", "0"], "expected 1 or more, received '0'"),
        (["unknown"], "invalid choice: 'unknown'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_reason(capsys, argv, words):
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_the_formula_follows_a_colon_or_opens_a_paragraph():
    class Long:
        """One `thing`
        on two lines: `a +
        b`.

        `c` opens a paragraph.
        """

    class Later:
        """With `code`, but no formula.

        `c` is it.
        """

    class Absent:
        """With `code`, but no formula.

        Args:
            x: `c`.
        """

    assert [cli.formula(c) for c in (Long, Later, Absent)] == ["a + b", "c", ""]
    assert cli.summary(Long) == "One `thing` on two lines: `a + b`."


def test_as_a_module_clean_on_stdout_and_safe_without_a_reader():
    command = [sys.executable, "-m", "keras_penalties"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    left = subprocess.Popen([*command, "list"], **pipes)
    left.stdout.close()  # as `| head` does, only sooner
    shown = subprocess.run([*command, "--version"], check=True, **pipes)
    assert shown.stdout == f"keras-penalties {__version__}\n"
    assert left.wait() == 141
    assert "Error" not in left.stderr.read()


def test_demo_says_at_once_that_it_cannot_write(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run("demo", "--out", str(tmp_path / "file")) == 1
    assert "File exists" in capsys.readouterr().err
