"""Real handwritten digits that need no download: scikit-learn's 1,797."""

from dataclasses import dataclass

import torch

from arena.core import Labelled
from arena.data.source import Source


@dataclass(frozen=True)
class Digits(Source):
    """Optical recognition of handwritten digits (Alpaydin & Kaynak 1998, UCI), [1, 8, 8] in [0, 1].

    The copy that scikit-learn ships: the 1,797 examples of the original test set, by 13 writers.
    """

    def load(self) -> tuple[Labelled, None]:
        """All examples; there is no split."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images).float().div_(16.0).unsqueeze(1)
        return Labelled(x, torch.from_numpy(digits.target).long(), 10).validated("digits"), None
