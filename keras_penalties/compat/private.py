"""How a private part of Keras is found, and what happens where Keras lacks the part.

Keras may move or drop a private part in any release. A part that is missing never
breaks `import keras_penalties`: a stand-in takes the part's place, and the feature that
needs the part raises an error that names the feature once somebody uses the feature.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

import keras

# The releases and the newest nightly that the tests were run on. `.ci/run` reads
# CHECKED_NIGHTLY here: raise the number once the nightly lane is green on a newer one.
OLDEST_RELEASE, NEWEST_RELEASE = "3.10.0", "3.15.1"
CHECKED_NIGHTLY = "3.16.0.dev2026102704"


class Missing:
    """Stands in for a private part that this Keras lacks: a call raises the error."""

    def __init__(self, feature: str, part: str) -> None:
        self.feature, self.part = feature, part

    def message(self) -> str:
        """The feature, the part that it needs, the versions and the way out."""
        return (
            f"{self.feature}: this feature of keras_penalties needs `{self.part}`, "
            f"a private part of Keras that Keras {keras.__version__} lacks. "
            f"keras_penalties was tested with Keras {OLDEST_RELEASE} to "
            f"{NEWEST_RELEASE} and with keras-nightly {CHECKED_NIGHTLY}. Install one "
            f"of these, for example by `pip install keras=={NEWEST_RELEASE}`, or a "
            "newer keras_penalties. Whatever does not need this feature still works."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise the error: the feature that needs the part is being used."""
        raise RuntimeError(self.message())


def private(feature: str, *places: str) -> Any:
    """The part at the first of the places that has one, or a stand-in that raises.

    Args:
        feature: What the user loses without the part, as the error names the feature.
        places: Each `"module:name"`, in the order in which they are tried.
    """
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return Missing(feature, places[0].replace(":", "."))


def part_of(owner: Any, name: str, feature: str) -> Any:
    """A private attribute of a Keras object, or the error that names the feature."""
    try:
        return getattr(owner, name)
    except AttributeError:
        return Missing(feature, f"{type(owner).__name__}.{name}")()
