"""`bounded_mean_p` for many samples at once: the saddlepoint tail of all, the exact one where it is near the level."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from harness.stats.bounded import bounded_mean_p

Floats = npt.NDArray[np.float64]
ALPHA = 0.05
NEAR = (0.04, 0.06)  # where the approximation is not left to decide
BLOCK = 4_000_000
FEW_LEVELS = 60
STEPS = 14


def rejected(values: Floats, lowest: float) -> npt.NDArray[np.bool_]:
    """Whether each row of values, shape (rows, n), rejects H0: mean ≤ 0 at 5%; no value can lie below `lowest`.

    Rows of few distinct values are counted, and each table of counts is asked once.
    """
    levels = np.unique(values[:1000].round(12))
    if len(levels) <= FEW_LEVELS:
        place = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
        if np.abs(levels[place] - values).max() < 1e-9:
            width = len(levels)
            flat = place + width * np.arange(len(values))[:, None]
            counts = np.bincount(flat.ravel(), minlength=width * len(values)).reshape(-1, width)
            tables, index = np.unique(counts, axis=0, return_inverse=True)
            return _decided(np.broadcast_to(levels, tables.shape), tables, lowest)[index.ravel()]
    step = max(1, BLOCK // values.shape[1])
    blocks = [values[at : at + step] for at in range(0, len(values), step)]
    return np.concatenate([_decided(block, np.ones(block.shape, dtype=np.int64), lowest) for block in blocks])


def _decided(values: Floats, counts: npt.NDArray[np.int64], lowest: float) -> npt.NDArray[np.bool_]:
    p = _tails(values, counts, lowest)
    found = p <= ALPHA
    for row in np.flatnonzero((p > NEAR[0]) & (p < NEAR[1])):
        found[row] = bounded_mean_p(np.repeat(values[row], counts[row]), 0.0, lowest) <= ALPHA
    return found


def _tails(values: Floats, counts: npt.NDArray[np.int64], lowest: float) -> Floats:
    """Lugannani & Rice's p of each row; 1 where the mean of the row and the lowest value is not above 0."""
    w = np.column_stack([values, np.full(len(values), lowest)])
    times = np.column_stack([counts, np.ones(len(values))])
    p, above = np.ones(len(w)), (w * times).sum(axis=1) > 1e-9
    w, times = w[above], times[above]
    if not len(w):
        return p
    low, high = (1 - 1e-9) / lowest * np.ones(len(w)), np.zeros(len(w))
    saddle = low / 2
    for _ in range(STEPS):  # Newton's, by halving where a step would leave the bracket
        share = w / (1 - w * saddle[:, None])
        slope, curvature = (times * share).sum(axis=1), (times * share**2).sum(axis=1)
        low, high = np.where(slope < 0, saddle, low), np.where(slope < 0, high, saddle)
        following = saddle - slope / curvature
        saddle = np.where((following > low) & (following < high), following, (low + high) / 2)
    kept = 1 - w * saddle[:, None]
    signed = -np.sqrt(np.maximum(2 * (times * np.log(kept)).sum(axis=1), 1e-12))
    scaled = np.minimum(saddle, -1e-12) * np.sqrt((times * (w / kept) ** 2).sum(axis=1))
    density = np.exp(-(signed**2) / 2) / np.sqrt(2 * np.pi)
    p[above] = np.clip(ndtr(signed) + density * (1 / signed - 1 / scaled), 0, 1)
    return p
