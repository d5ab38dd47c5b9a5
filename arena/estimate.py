"""Means with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean and the half-width of its 95 % confidence interval (NaN if it cannot be told)."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if math.isnan(self.half) else f" ± {self.half:.3f}")

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half


def over_seeds(samples: Sequence[np.ndarray], level: float = 0.95) -> Estimate:
    """The mean over seeds of per-example values, an array [n] a seed.

    A seed redraws the data's split, the initial weights and the attack's starts, so seeds are the
    independent units and examples lie inside them: Student's t over the means of the seeds. Seeds
    times examples would count shared randomness as independent. With a single seed only the
    sampling of examples can be told, and the interval is the normal one over them. For a price,
    give paired differences.
    """
    means = np.array([np.nanmean(sample) for sample in samples])
    if len(means) > 1:
        half = stats.t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    else:
        known = samples[0][~np.isnan(samples[0])]
        spread = known.std(ddof=1) if len(known) > 1 else float("nan")
        half = stats.norm.ppf((1 + level) / 2) * spread / len(known) ** 0.5
    return Estimate(float(means.mean()), float(half))
