"""Median smoothing of images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.fields import Count
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class MedianSmoothing(Transformation):
    """Every pixel becomes the median of a square about it: Xu et al. 2018 (1704.01155), 3.2.

    Beyond its edges an image is continued by its reflection, edge pixels included. A square of even
    width reaches one pixel further up and to the left, and the larger of its two middle values is
    taken. The derivative is that of the pixel chosen: no approximation is needed to attack it.

    Attributes:
        width: Of the square, in pixels; 1 is the identity.

    Raises:
        ValueError: When called on inputs that are no images at least as large as the square.
    """

    width: Count = 2

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The smoothed images [B, ..., H, W], each channel for itself."""
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
    """The places 0 .. length - 1, continued by width - 1 reflected ones, at both ends."""
    before = width // 2
    place = torch.arange(-before, length + width - 1 - before, device=device)
    place = torch.where(place < 0, -1 - place, place)
    return torch.where(place >= length, 2 * length - 1 - place, place)
