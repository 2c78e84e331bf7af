"""`keras-penalties`: list, show, inspect and demo."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from keras_penalties_cli import catalogue
from keras_penalties_cli.inspection import Refused, inspected, printed
from keras_penalties_cli.inspection.saved import printable

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
    except OSError as error:  # such as a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _complain(str(error))
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Penalties and losses for Keras 3."
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {catalogue.version()}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    names = commands.add_parser("list", help="show every registered name")
    names.add_argument(
        "text", nargs="?", default="", help="a word of name or docstring"
    )
    kinds = ["layer", "loss", "metric", "model", "optimizer", "penalty", "schedule"]
    names.add_argument(
        "--kind", choices=[*kinds, "strength"], help="show only one kind"
    )
    _json_option(names)
    names.set_defaults(run=_list)

    show = commands.add_parser("show", help="explain one name")
    show.add_argument("name", help="as `list` shows it, or the class's name")
    _json_option(show)
    show.set_defaults(run=_show)

    inspect = commands.add_parser("inspect", help="the objective of a saved model")
    inspect.add_argument("file", type=Path, help="a .keras file; its code never runs")
    _json_option(inspect)
    inspect.set_defaults(run=_inspect)

    demo = commands.add_parser("demo", help="train on real digits and write a report")
    option = partial(demo.add_argument, help="default: %(default)s")
    option("--out", type=Path, default=Path("demo-report"), metavar="DIR")
    option("--epochs", type=_count, default=40, metavar="N")
    demo.set_defaults(run=_demo)
    return parser


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, received {text!r}")
    return int(text)


def _list(args: argparse.Namespace) -> int:
    """Print one line for each object: name, key, and its formula or its summary."""
    found = [
        entry
        for entry in catalogue.entries()
        if args.kind in (None, entry.kind)
        and args.text.lower() in f"{entry.name} {entry.key} {entry.doc}".lower()
    ]
    if args.json:
        _print_json([_row(entry) for entry in found])
        return 0 if found else 1
    if not found:
        return _complain(f"no {args.kind or 'name'} contains {args.text!r}")
    rows = [("name", "Keras key", "formula or summary")]
    rows += [(entry.name, entry.key, entry.line) for entry in found]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for name, key, text in rows:
        print(f"{name:<{widths[0]}}  {key:<{widths[1]}}  {text}")
    return 0


def _row(entry: catalogue.Entry) -> dict[str, str]:
    doc = catalogue.formula(entry.doc), catalogue.summary(entry.doc)
    return {
        "name": entry.name,
        "key": entry.key,
        "kind": entry.kind,
        "formula": doc[0],
        "summary": doc[1],
    }


def _show(args: argparse.Namespace) -> int:
    """Print the whole docstring of one object, under its signature."""
    entries = catalogue.entries()
    found = [e for e in entries if args.name in (e.name, e.key, e.key.split(">")[1])]
    if not found:
        import difflib

        near = difflib.get_close_matches(args.name, [e.name for e in entries], 3)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        return _complain(f"no name is {args.name!r}{hint}")
    if args.json:
        _print_json([_row(entry) | asdict(entry) for entry in found])
        return 0
    for entry in found:
        print(f"{entry.kind} {entry.key}, '{entry.name}', in {entry.where}")
        print(f"\n{entry.signature}\n\n{entry.doc}\n")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    try:
        report = inspected(args.file)
    except Refused as reason:
        if args.json:
            _print_json({"file": str(args.file), "error": str(reason)})
            return 1
        return _complain(printable(f"{args.file}: {reason}"))
    if args.json:
        _print_json(report)
    else:
        print(printed(report))
    return 1 if report["unread"] else 0


def _print_json(found: Any) -> None:
    print(json.dumps(found, indent=2, allow_nan=False))


def _demo(args: argparse.Namespace) -> int:
    try:
        from keras_penalties import demo

        args.out.mkdir(parents=True, exist_ok=True)  # before it trains, not after
        demo.run(args.out, args.epochs)
    except ModuleNotFoundError as error:
        if error.name in ("tensorflow", "jax", "torch"):
            return _complain(
                f"{error.name}, the backend that Keras starts, is not installed: set "
                "the environment variable KERAS_BACKEND to tensorflow, jax or torch, "
                "whichever is"
            )
        return _complain(f"{error}: pip install 'keras-penalties[demo]'")
    except OSError as error:
        return _complain(str(error))
    return 0


def _complain(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return 1
