"""`python -m campaign [PART] ...`, with tests/ on the path.

A part is a module with `add_arguments(parser)` and `run(arguments) -> int`. Without a
part it is the random models: `python -m campaign --count 1000 --seed 7`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

PARTS = {
    "models": "campaign.random_models",
    "verify": "campaign.verify",
}
"""The parts, by the word that chooses them. Others are added here, one line each."""


def main(words: list[str]) -> int:
    """Run the part that the first word names."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    part = words[0] if words and words[0] in PARTS else "models"
    module = importlib.import_module(PARTS[part])
    parser = argparse.ArgumentParser(f"campaign {part}", description=module.__doc__)
    module.add_arguments(parser)
    rest = words[1:] if words and words[0] in PARTS else words
    return int(module.run(parser.parse_args(rest)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
