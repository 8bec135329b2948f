"""Agreement of two raters on the same items."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def cohen_kappa(left: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """Agreement beyond chance, 1 at best (Cohen 1960); nan where chance alone agrees on everything.

    Raises ValueError for no items or unequal lengths.
    """
    n = len(left)
    if n == 0 or n != len(right):
        raise ValueError(f"need as many ratings of each rater and at least one, got {n} and {len(right)}")
    observed = sum(a == b for a, b in zip(left, right, strict=True)) / n
    counts, others = Counter(left), Counter(right)
    chance = sum(counts[label] * others[label] for label in counts) / (n * n)
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)
