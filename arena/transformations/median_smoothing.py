"""Median smoothing of images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.fields import Count
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class MedianSmoothing(Transformation):
    """Each pixel becomes the median of a square around it: Xu et al. 2018 (1704.01155), 3.2.

    Images are padded by reflection, edge pixels included. A square of even width reaches one pixel
    further up and to the left, and the larger of its two middle values is taken. The derivative is
    that of the chosen pixel, so an attack needs no approximation.

    Attributes:
        width: Width of the square in pixels; 1 is the identity.

    Raises:
        ValueError: When called on inputs that are not images, or images smaller than the square.
    """

    width: Count = 2

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The smoothed images [B, ..., H, W]; channels are smoothed separately."""
        if x.ndim < 3 or min(x.shape[-2:]) < self.width:
            raise ValueError(
                f"MedianSmoothing(width={self.width}) smooths images [H, W] of at least that size, "
                f"not inputs of shape {list(x.shape[1:])}; take a smaller width, or drop it"
            )
        size = self.width
        continued = x
        for axis in (-2, -1):
            continued = continued.index_select(axis, _reflected(x.shape[axis], size, x.device))
        squares = continued.unfold(-2, size, 1).unfold(-2, size, 1).flatten(-2)
        return squares.kthvalue(size * size // 2 + 1).values


def _reflected(length: int, width: int, device: torch.device) -> Tensor:
    """The pixel numbers 0 .. length - 1 and, at both ends, width - 1 reflected ones in total."""
    before = width // 2
    place = torch.arange(-before, length + width - 1 - before, device=device)
    place = torch.where(place < 0, -1 - place, place)
    return torch.where(place >= length, 2 * length - 1 - place, place)
