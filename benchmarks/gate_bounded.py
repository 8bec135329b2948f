"""`bounded_mean_p` for many samples at once: the saddlepoint tail of all, the exact one where it is near the level."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from harness.stats.bounded import bounded_mean_p

Floats = npt.NDArray[np.float64]
ALPHA = 0.05
NEAR = (0.04, 0.06)  # where the approximation is not left to decide
BLOCK = 4_000_000
STEPS = 14


def rejected(values: Floats, lowest: float) -> npt.NDArray[np.bool_]:
    """Whether each row of values, shape (rows, n), rejects H0: mean ≤ 0 at 5%; no value can lie below `lowest`."""
    step = max(1, BLOCK // values.shape[1])
    p = np.concatenate([_tails(values[at : at + step], lowest) for at in range(0, len(values), step)])
    found = p <= ALPHA
    near = np.flatnonzero((p > NEAR[0]) & (p < NEAR[1]))
    tables, index = np.unique(np.sort(values[near], axis=1), axis=0, return_inverse=True)
    exact = np.array([bounded_mean_p(table, 0.0, lowest) <= ALPHA for table in tables], dtype=bool)
    found[near] = exact[index.ravel()]
    return found


def _tails(values: Floats, lowest: float) -> Floats:
    """Lugannani & Rice's p of each row; 1 where the mean of the row and the lowest value is not above 0."""
    w = np.column_stack([values, np.full(len(values), lowest)])
    p, above = np.ones(len(w)), w.sum(axis=1) > 1e-9
    w = w[above]
    if not len(w):
        return p
    low, high = (1 - 1e-9) / w.min(axis=1), np.zeros(len(w))
    saddle = low / 2
    for _ in range(STEPS):  # Newton's, by halving where a step would leave the bracket
        share = w / (1 - w * saddle[:, None])
        slope, curvature = share.sum(axis=1), np.einsum("ij,ij->i", share, share)
        low, high = np.where(slope < 0, saddle, low), np.where(slope < 0, high, saddle)
        following = saddle - slope / curvature
        saddle = np.where((following > low) & (following < high), following, (low + high) / 2)
    kept = 1 - w * saddle[:, None]
    signed = -np.sqrt(np.maximum(2 * np.log(kept).sum(axis=1), 1e-12))
    scaled = np.minimum(saddle, -1e-12) * np.sqrt(((w / kept) ** 2).sum(axis=1))
    density = np.exp(-(signed**2) / 2) / np.sqrt(2 * np.pi)
    p[above] = np.clip(ndtr(signed) + density * (1 / signed - 1 / scaled), 0, 1)
    return p
