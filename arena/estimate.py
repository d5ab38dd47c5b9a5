"""Means with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        mean: The mean.
        half: Half the width of the interval, at the level asked for; NaN if it is unknown.
    """

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if math.isnan(self.half) else f" ± {self.half:.3f}")

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half


def over_seeds(samples: Sequence[np.ndarray], level: float = 0.95) -> Estimate:
    """The mean over seeds of per-example values, with its interval.

    A seed redraws the data's split, the initial weights and the attack's starts. So seeds are the
    independent units, examples lie inside them, and the interval is Student's t over the means of
    the seeds. To take the values of all seeds as independent would count shared randomness several
    times. A single seed shows only the sampling of examples: see `over_examples`.

    Args:
        samples: For each seed, values [n]; for a price, paired differences. NaN is left out.
        level: Of the interval, in (0, 1).
    """
    if len(samples) == 1:
        return over_examples(samples[0], level)
    means = np.array([np.nanmean(sample) for sample in samples])
    half = stats.t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    return Estimate(float(means.mean()), float(half))


def over_examples(sample: np.ndarray, level: float = 0.95) -> Estimate:
    """The mean over examples with its normal interval, which is unknown for a single example.

    Args:
        sample: Values [n], independent between examples. NaN is left out.
        level: Of the interval, in (0, 1).
    """
    known = sample[~np.isnan(sample)]
    spread = known.std(ddof=1) if len(known) > 1 else float("nan")
    half = stats.norm.ppf((1 + level) / 2) * spread / len(known) ** 0.5
    return Estimate(float(np.nanmean(sample)), float(half))
