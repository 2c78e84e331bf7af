"""The gallery's data: public, small, and from package registries alone.

Files are kept in `~/.cache/keras_penalties_gallery`, or where the environment variable
`GALLERY_CACHE` says. Nothing is installed.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ISLP = "ISLP==0.6.0"
DEBIAN = "dataset-fashion-mnist"
INSTALLED = Path("usr/share/datasets/fashion-mnist")


class NoDataError(RuntimeError):
    """The data are not on this machine, and could not be had from the registries."""


class Split(NamedTuple):
    """Samples to train on and samples to test with."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def cache() -> Path:
    """The folder that keeps what was downloaded."""
    named = os.environ.get("GALLERY_CACHE")
    folder = Path(named or Path.home() / ".cache" / "keras_penalties_gallery")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def khan() -> Split:
    """Small round blue cell tumours: 63 + 20 samples of 2,308 genes, 4 classes.

    Khan et al., Nature Medicine 2001, as the wheel `ISLP` on PyPI has them. The classes
    are 0 BL (Burkitt lymphoma), 1 EWS (Ewing sarcoma), 2 NB (neuroblastoma), 3 RMS
    (rhabdomyosarcoma).
    """
    with zipfile.ZipFile(_wheel()) as wheel:
        parts = [
            np.genfromtxt(
                io.BytesIO(wheel.read(f"ISLP/data/Khan_{name}.csv")),
                delimiter=",",
                skip_header=1,
            )
            for name in ("xtrain", "ytrain", "xtest", "ytest")
        ]
    x, y, x_test, y_test = parts
    labels = [(part - 1).astype("int32") for part in (y, y_test)]
    return Split(x.astype("float32"), labels[0], x_test.astype("float32"), labels[1])


def fashion() -> Split:
    """Fashion-MNIST: 60,000 + 10,000 images of 28 × 28 from 0 to 1, 10 classes.

    Xiao, Rasul and Vollgraf 2017, from Debian's package, or else from Keras' server.
    """
    folder = _fashion_folder()
    if folder is None:
        (x, y), (x_test, y_test) = _from_keras()
    else:
        x, x_test = (_idx(folder / f"{n}-images-idx3-ubyte.gz") for n in _NAMES)
        y, y_test = (_idx(folder / f"{n}-labels-idx1-ubyte.gz") for n in _NAMES)
    images = [part.astype("float32") / 255.0 for part in (x, x_test)]
    return Split(images[0], y.astype("int32"), images[1], y_test.astype("int32"))


_NAMES = ("train", "t10k")


def _from_keras() -> Any:
    import keras

    try:
        return keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # what Keras raises depends on the network
        raise NoDataError(
            "Fashion-MNIST could not be had. Neither `apt-get download` nor Keras' "
            f"server gave it. Unpack Debian's package {DEBIAN} into {cache()}: "
            f"dpkg-deb -x {DEBIAN}_*.deb {cache()}"
        ) from error


def _wheel() -> Path:
    found = sorted(cache().glob("[iI][sS][lL][pP]-*.whl"))
    if not found:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        _tried([*pip, "--dest", str(cache()), ISLP], "Khan's tumours")
        found = sorted(cache().glob("[iI][sS][lL][pP]-*.whl"))
    return found[-1]


def _fashion_folder() -> Path | None:
    """Where the files lie. None where there is no Debian to have them from."""
    for root in (Path("/"), cache()):
        if (root / INSTALLED / "train-images-idx3-ubyte.gz").exists():
            return root / INSTALLED
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    try:
        _tried(["apt-get", "download", DEBIAN], "Fashion-MNIST")
    except NoDataError:
        return None
    for package in cache().glob(f"{DEBIAN}*.deb"):
        _tried(["dpkg-deb", "-x", str(package), str(cache())], "Fashion-MNIST")
    return cache() / INSTALLED


def _tried(command: list[str], what: str) -> None:
    done = subprocess.run(command, cwd=cache(), capture_output=True, text=True)
    if done.returncode:
        raise NoDataError(
            f"{what} could not be had. This command failed:\n  {' '.join(command)}\n"
            f"{done.stderr.strip()}\n"
            f"Run the command where there is a network, and put its file into "
            f"{cache()}."
        )


def _idx(path: Path) -> np.ndarray:
    """The array of an IDX file of bytes: a magic number, the shape, the bytes."""
    with gzip.open(path) as file:
        rank = file.read(4)[3]
        shape = np.frombuffer(file.read(4 * rank), ">u4").astype(int)
        return np.frombuffer(file.read(), "u1").reshape(shape)
