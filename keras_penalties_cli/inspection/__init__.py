"""What a saved model's objective is, read from the file alone.

No code of the file runs, no class that the file names is imported, and no backend
starts: this package imports the standard library only. h5py and numpy run in a child
process with limits: see `weights.py`.
"""

from keras_penalties_cli.inspection.archive import Refused
from keras_penalties_cli.inspection.report import inspected, printed

__all__ = ["Refused", "inspected", "printed"]
