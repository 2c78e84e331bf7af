"""A model from a folder that SAELens has written."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_penalties.models.dictionary import DictionaryAutoencoder
from keras_penalties.models.penalized_codes import (
    GatedAutoencoder,
    JumpReLUAutoencoder,
    ReLUAutoencoder,
)
from keras_penalties.models.ranked_codes import TopKAutoencoder
from keras_penalties.models.saelens import read


def from_saelens(folder: Any) -> DictionaryAutoencoder:
    """The model that SAELens, or `to_saelens`, has written to a folder.

    The architectures "standard", "topk", "jumprelu" (as which SAELens also writes its
    BatchTopK and Matryoshka ones) and "gated" are read. The model is not compiled, and
    its penalty has the default strength: the file has none.

    Args:
        folder: The folder with `cfg.json` and `sae_weights.safetensors`.

    Returns:
        A `ReLUAutoencoder`, `TopKAutoencoder`, `JumpReLUAutoencoder` or
        `GatedAutoencoder`, whose code and output are SAELens' own.

    Raises:
        ValueError: if a file is missing or damaged, is older than SAELens 6, or has an
            architecture, a normalization or a reshaping that our models lack.
        ImportError: if safetensors is not installed.

    Example:
        >>> import keras, tempfile, numpy as np, keras_penalties as kp
        >>> model, x = kp.models.TopKAutoencoder(16, k=3), np.ones((2, 8), "float32")
        >>> outputs, folder = model(x), tempfile.mkdtemp()
        >>> model.to_saelens(folder)
        >>> again = kp.models.from_saelens(folder)
        >>> difference = keras.ops.max(keras.ops.abs(again(x) - outputs))
        >>> type(again).__name__, bool(difference < 1e-5)
        ('TopKAutoencoder', True)
    """
    config, arrays = read(folder)
    units, width = config["d_sae"], config["d_in"]
    centred = bool(config.get("apply_b_dec_to_input", True))
    options: dict[str, Any] = {"unit_norm": False, "centred": centred}
    model = _model(config, units, options)
    model.build((None, width))
    if config.get("rescale_acts_by_decoder_norm"):
        arrays = _folded(arrays)
    model.decoder.set_weights([arrays["W_dec"], arrays["b_dec"]])
    gated = isinstance(model, GatedAutoencoder)
    names = "W_enc b_gate b_mag r_mag" if gated else "W_enc b_enc"
    model.encoder.set_weights([arrays[name] for name in names.split()])
    if isinstance(model, JumpReLUAutoencoder):
        model.activation.threshold.assign(arrays["threshold"])
    return model


def _model(
    config: dict[str, Any], units: int, options: dict[str, Any]
) -> DictionaryAutoencoder:
    match config["architecture"]:
        case "standard":
            return ReLUAutoencoder(units, **options)
        case "topk":
            return TopKAutoencoder(units, config.get("k", 100), **options)
        case "jumprelu":
            return JumpReLUAutoencoder(units, **options)
        case _:
            return GatedAutoencoder(units, **options)


def _folded(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same function where the lengths of the directions lie in the encoder.

    SAELens multiplies the code by these lengths and divides by them in the decoder.
    """
    sizes = np.linalg.norm(arrays["W_dec"], axis=1)
    return {
        **arrays,
        "W_enc": arrays["W_enc"] * sizes,
        "b_enc": arrays["b_enc"] * sizes,
        "W_dec": arrays["W_dec"] / np.maximum(sizes, 1e-8)[:, None],
    }
