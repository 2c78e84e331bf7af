"""A campaign against faults: `python -m campaign --help` says what it can do."""
