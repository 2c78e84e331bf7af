"""Fresh processes that start at once.

A test of a reload runs its script in a fresh process. To import Keras and its backend
takes far longer than most of these scripts. So one process imports Keras, and nothing
of ours, and waits. Each script runs in a fork of that process: Keras is imported there
and not yet used.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["keras"])
STREAMS = ("in", "out", "err")
HARMLESS = {"PYTHONPATH", "MPLBACKEND"}
"""What a script may set once its backend is imported. All else needs a new process."""


def run(script: Path, stdin: str, env: dict[str, str]) -> str:
    """What a script prints. It runs in its own folder; its failure is ours."""
    files = [script.with_suffix(f".{kind}") for kind in STREAMS]
    for file, text in zip(files, (stdin, "", ""), strict=True):
        file.write_text(text)
    start = _forked if set(env) <= HARMLESS else _started
    status = start(script, files, {**os.environ, **env})
    assert status == 0, files[2].read_text()[-3000:] or "it ended before it began"
    return files[1].read_text().strip()


def _started(script: Path, files: list[Path], env: dict[str, str]) -> int:
    command = [sys.executable, str(script)]
    with files[0].open() as given, files[1].open("w") as out, files[2].open("w") as err:
        streams = {"stdin": given, "stdout": out, "stderr": err}
        done = subprocess.run(
            command, env=env, cwd=script.parent, check=False, **streams
        )
    return done.returncode


def _forked(script: Path, files: list[Path], env: dict[str, str]) -> int | None:
    process = FORKS.Process(target=_become, args=(script, files, env))
    process.start()
    process.join()
    return process.exitcode


def _become(script: Path, files: list[Path], env: dict[str, str]) -> None:
    """Take on all that a new process would have been started with."""
    assert "keras_penalties" not in sys.modules, "somebody has preloaded the package"
    os.environ.clear()
    os.environ.update(env)
    os.chdir(script.parent)
    for number, file in enumerate(files):
        os.dup2(os.open(file, os.O_WRONLY if number else os.O_RDONLY), number)
    sys.stdin = os.fdopen(0)
    sys.argv = [str(script)]
    here = os.path.dirname(__file__)
    ahead = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [str(script.parent), *ahead, *(p for p in sys.path if p != here)]
    runpy.run_path(str(script), run_name="__main__")
