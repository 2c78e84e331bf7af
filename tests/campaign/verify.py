"""The other end of a reload: run in a fresh process by `reload.in_fresh_process`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from campaign import reload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--same", action="store_true", help="to the last bit")


def run(arguments: argparse.Namespace) -> int:
    """Print what differs, as JSON."""
    print(json.dumps(reload.verify(arguments.folder, arguments.same)))
    return 0
