"""The command line: `keras-penalties list` and `keras-penalties demo`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from keras_penalties import __version__
from keras_penalties.docstrings import formula, summary
from keras_penalties.registry import registered

PROGRAM = "keras-penalties"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and give back the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has a Σ
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reading program has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a shell reports SIGPIPE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Penalties and losses for Keras 3."
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    names = commands.add_parser("list", help="show every registered name")
    names.add_argument(
        "text", nargs="?", default="", help="a word of name or docstring"
    )
    kinds = sorted({entry.kind for entry in registered()})
    names.add_argument("--kind", choices=kinds, help="show only one kind")
    names.set_defaults(run=_list)

    demo = commands.add_parser("demo", help="train on real digits and write a report")
    option = partial(demo.add_argument, help="default: %(default)s")
    option("--out", type=Path, default=Path("demo-report"), metavar="DIR")
    option("--epochs", type=_count, default=20, metavar="N")
    demo.set_defaults(run=_demo)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, received {text!r}")
    return int(text)


def _list(args: argparse.Namespace) -> int:
    """Print one line for each object: name, key, and its formula or its summary."""
    entries = sorted(registered(args.kind), key=lambda e: (e.kind, e.name))
    rows = [
        (e.name, e.key, formula(e.obj) or summary(e.obj))
        for e in entries
        if args.text.lower() in f"{e.name} {e.key} {e.obj.__doc__}".lower()
    ]
    if not rows:
        return _complain(f"no {args.kind or 'name'} contains {args.text!r}")
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for name, key, text in rows:
        print(f"{name:<{widths[0]}}  {key:<{widths[1]}}  {text}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    try:
        from keras_penalties import demo

        args.out.mkdir(parents=True, exist_ok=True)  # before it trains, not after
        demo.run(args.out, args.epochs)
    except ModuleNotFoundError as error:
        return _complain(f"{error}: pip install 'keras-penalties[demo]'")
    except OSError as error:
        return _complain(str(error))
    return 0


def _complain(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return 1
