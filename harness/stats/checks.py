"""Checks of arguments that all statistics share: counts, fractions, p-values, samples."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def require_open_unit(name: str, value: float) -> None:
    """Raises ValueError unless 0 < value < 1 (NaN is refused too)."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")


def require_unit(name: str, value: float) -> None:
    """Raises ValueError unless 0 <= value <= 1 (NaN is refused too)."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def require_count(name: str, value: float) -> None:
    """Raises ValueError unless value is a whole number of at least 0."""
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise ValueError(f"{name} must be a whole number of at least 0, got {value}")


def require_p_values(p_values: npt.ArrayLike) -> FloatArray:
    """The p-values as float64, shape (m,); raises ValueError when one is NaN or outside [0, 1]."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p-values must be a flat list, got shape {p.shape}")
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values must lie between 0 and 1")
    return p


def require_sample(d: npt.NDArray[Any]) -> FloatArray:
    """The differences as float64, shape (n,) with n >= 2; raises ValueError on fewer, on NaN and on infinity."""
    sample = np.asarray(d, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise ValueError(f"need at least 2 differences in one dimension, got shape {sample.shape}")
    if not np.all(np.isfinite(sample)):
        raise ValueError("differences must be finite")
    return sample
