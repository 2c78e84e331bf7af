"""The folder in which SAELens keeps a sparse autoencoder: one file each way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_penalties import checks
from keras_penalties.files import replacing

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
SHAPES = {
    "W_enc": ("d_in", "d_sae"),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
    **dict.fromkeys(("b_enc", "threshold", "b_gate", "b_mag", "r_mag"), ("d_sae",)),
}
"""The shape of each array by the sizes that the config names."""
NEEDED = {
    "standard": {"W_enc", "W_dec", "b_dec", "b_enc"},
    "topk": {"W_enc", "W_dec", "b_dec", "b_enc"},
    "jumprelu": {"W_enc", "W_dec", "b_dec", "b_enc", "threshold"},
    "gated": {"W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"},
}
"""The arrays of each architecture that both sides have."""
VERSION = "6.54.0"
"""The SAELens whose format this is. A file must say one of 6.0 or later."""


def write(
    folder: Any,
    architecture: str,
    weights: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
) -> None:
    """Write an autoencoder as SAELens' `SAE.load_from_disk` reads it."""
    safetensors = _safetensors()
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    arrays = {k: np.ascontiguousarray(v, "float32") for k, v in weights.items()}
    d_in, d_sae = arrays["W_enc"].shape
    config = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        **options,
        "metadata": {"sae_lens_version": VERSION, "trained_by": "keras_penalties"},
    }
    # Both are written before either takes its place.
    with replacing(path / WEIGHTS) as new, replacing(path / CONFIG) as beside:
        new.write_bytes(safetensors.save(arrays))
        beside.write_text(json.dumps(config, indent=2), "utf-8")


def read(folder: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config and the arrays of a folder that SAELens or `write` has written.

    Raises:
        ValueError: if a file is missing or damaged, or if the file has what our models
            lack: another architecture, a normalization, another shape.
    """
    safetensors = _safetensors()
    path = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            checks.refuse("folder", f"a folder with the file {name}", str(folder))
    try:
        config = json.loads((path / CONFIG).read_text())
        weights = safetensors.load((path / WEIGHTS).read_bytes())
    except Exception as error:  # each library has errors of its own for damaged files
        message = f"whole files of SAELens; reading them failed: {error}"
        checks.refuse("folder", message, str(folder))
    _check_config(config)
    _check_shapes(config, weights)
    return config, {name: weights[name] for name in NEEDED[config["architecture"]]}


def _check_config(config: Any) -> None:
    if not isinstance(config, dict):
        checks.refuse("folder", f"an object in {CONFIG}", config)
    metadata = config.get("metadata")
    version = metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version.split(".")[0].isdigit():
        version = "0"
    if int(version.split(".")[0][:9]) < 6:
        expected = "the format of SAELens 6 or later: load the file there and save it"
        checks.refuse("folder", expected, config.get("metadata"))
    for key, allowed in (
        ("architecture", list(NEEDED)),
        ("normalize_activations", ["none", "expected_average_only_in"]),
        ("reshape_activations", ["none"]),
    ):
        if config.get(key, "none") not in allowed:
            checks.refuse("folder", f"{key} to be one of {allowed}", config.get(key))


def _check_shapes(config: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    for name in sorted(NEEDED[config["architecture"]]):
        shape = tuple(config.get(size) for size in SHAPES[name])
        found = weights[name].shape if name in weights else None
        if found != shape:
            checks.refuse("folder", f"an array {name} of shape {shape}", found)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "SAELens' files need safetensors: `pip install keras-penalties[saelens]`."
        ) from error
    return safetensors.numpy
