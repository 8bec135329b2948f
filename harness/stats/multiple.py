"""Adjusted p-values for several tests at once, in the order given; an empty list stays empty."""

from collections.abc import Sequence

import numpy as np

from harness.stats.checks import require_p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the chance of any false rejection (Holm 1979). Raises ValueError on NaN."""
    p = require_p_values(p_values)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the expected share of false rejections (Benjamini & Hochberg 1995)."""
    p = require_p_values(p_values)
    order = np.argsort(p, kind="stable")[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]
