"""Whether a filter of 8 × 8 pixels is an oriented edge.

Two figures must be high. The *Gabor share* is how much of the filter's variance the
best Gabor function explains, out of a bank: the filter has one place, one orientation
and one band. The *coherence* of the filter's gradients is 1 if all point along one line
and 0 if no line is preferred: it refuses blobs, which broad Gabor functions resemble.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

SIDE = 8
LEAST_SHARE, LEAST_COHERENCE = 0.8, 0.5
ORIENTATIONS = np.arange(12) * np.pi / 12
PLACES = np.arange(SIDE) - (SIDE - 1) / 2
WAVELENGTHS, ACROSS, ALONG = (3, 4, 6, 8, 12), (1.0, 1.5, 2.0, 3.0), (1.5, 3.0, 6.0)


def edges(filters: np.ndarray) -> np.ndarray:
    """Which of the filters, (number, 64), are oriented edges."""
    good = gabor_share(filters) >= LEAST_SHARE
    return np.logical_and(good, coherence(filters) >= LEAST_COHERENCE)


def gabor_share(filters: np.ndarray) -> np.ndarray:
    """The share of each filter's variance that one Gabor function explains."""
    even, odd = bank()
    w = _unit(filters)
    return np.max((w @ even.T) ** 2 + (w @ odd.T) ** 2, axis=1)


def coherence(filters: np.ndarray) -> np.ndarray:
    """(λ₁ − λ₂)/(λ₁ + λ₂) of the eigenvalues of Σ ∇w∇wᵀ over each filter's pixels."""
    dy, dx = np.gradient(filters.reshape(-1, SIDE, SIDE), axis=(1, 2))
    yy, xx, xy = (np.sum(a * b, axis=(1, 2)) for a, b in ((dy, dy), (dx, dx), (dx, dy)))
    size = xx + yy  # 0 for a flat filter, which has no edge
    return np.hypot(xx - yy, 2 * xy) / np.where(size > 0, size, 1.0)


@functools.cache
def bank() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of orthonormal vectors, (pairs, 64): each spans a Gabor of any phase."""
    y, x = np.meshgrid(PLACES, PLACES, indexing="ij")
    even, odd = [], []
    for angle, top, left in itertools.product(ORIENTATIONS, PLACES, PLACES):
        u = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
        v = (y - top) * np.cos(angle) - (x - left) * np.sin(angle)
        for length, across, along in itertools.product(WAVELENGTHS, ACROSS, ALONG):
            window = np.exp(-0.5 * ((u / across) ** 2 + (v / along) ** 2))
            even.append(window * np.cos(2 * np.pi * u / length))
            odd.append(window * np.sin(2 * np.pi * u / length))
    first = _unit(np.reshape(even, (len(even), -1)))
    second = _unit(np.reshape(odd, (len(odd), -1)))
    second -= np.sum(first * second, axis=1, keepdims=True) * first
    return first, _unit(second)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Without their mean, of length one; a row of nearly nothing becomes 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-6, rows / np.maximum(length, 1e-6), 0.0)
