"""Cutting planes: minimise a convex risk plus half the squared norm of the weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Risk = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps weights [n] to a convex risk (scalar, at least 0) and a subgradient [n]; all float64."""


class Unsolved(ValueError):
    """The gap was still too wide after the last plane."""


@dataclass(frozen=True)
class Minimum:
    """The best weights [n] that were found, their objective, and a lower bound on any objective."""

    weights: Tensor
    objective: float
    bound: float


def minimum(risk: Risk, start: Tensor, weight: float, tolerance: float, planes: int) -> Minimum:
    """The minimum of 1/2 ||w||^2 + weight risk(w), with its certificate. Deterministic.

    Joachims, Finley & Yu 2009, "Cutting-plane training of structural SVMs", algorithm 3 (one
    slack). The risk is at least 0, and at least every plane that touched it. The minimum under
    these planes is a lower bound; the objective of the best weights so far is an upper bound.

    Deviation: the next plane touches halfway between the best weights and that minimum, as in
    bundle methods. Where this was measured, it took at most four fifths of the planes.

    Args:
        risk: The risk.
        start: Where the first plane touches, [n] float64.
        weight: Factor of the risk in the objective.
        tolerance: Stop when the gap between the bounds is this share of the upper bound.
        planes: Most evaluations of the risk.

    Raises:
        Unsolved: If the gap is still wider after `planes` evaluations.
    """
    slopes, heights = torch.zeros_like(start)[None], start.new_zeros(1)  # "at least 0"
    shares = np.ones(1)
    w, best, upper, lower = start, start, float("inf"), 0.0
    for _ in range(planes):
        value, slope = risk(w)
        if (objective := float(0.5 * w @ w + weight * value)) < upper:
            best, upper = w, objective
        slopes = torch.cat([slopes, weight * slope[None]])
        heights = torch.cat([heights, weight * (value - slope @ w)[None]])
        gram = (slopes @ slopes.T).cpu().numpy()
        # A tenth of the gap: the outer problem needs no better solution of the inner one.
        precision = max(0.1 * (upper - lower), 1e-13 * upper)
        shares = _shares(gram, heights.cpu().numpy(), np.append(shares, 0.0), precision)
        held = torch.from_numpy(shares).to(start.device)
        lowest = -held @ slopes
        lower = max(lower, float(heights @ held - 0.5 * lowest @ lowest))
        if upper - lower <= tolerance * upper:
            return Minimum(best, upper, lower)
        w = 0.5 * (best + lowest)
    raise Unsolved(
        f"after {planes} planes the objective is between {lower:.6g} and {upper:.6g}, a gap above "
        f"tolerance={tolerance:g} of it; allow more planes or a wider gap"
    )


def _shares(gram: np.ndarray, heights: np.ndarray, a: np.ndarray, gap: float) -> np.ndarray:
    """The dual weights [m] of m planes: they maximise heights a - 1/2 a gram a on the simplex.

    Starts at `a` [m] and moves weight between two planes at a time, until the dual objective is
    within `gap` of its maximum.
    """
    gradient = heights - gram @ a
    while True:
        up, down = gradient.argmax(), np.where(a > 0, gradient, np.inf).argmin()
        if gradient[up] - a @ gradient <= gap:
            return a
        bend = gram[up, up] + gram[down, down] - 2 * gram[up, down]
        wanted = (gradient[up] - gradient[down]) / bend if bend > 0 else np.inf
        step = min(a[down], wanted)
        a[up] += step
        a[down] = 0.0 if wanted >= step == a[down] else a[down] - step
        gradient -= step * (gram[up] - gram[down])
