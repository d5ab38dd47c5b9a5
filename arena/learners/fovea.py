"""Foveation: a model that averages its answers to several parts of an image."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from arena import chance
from arena.classification import Learner
from arena.fields import Count, Share
from arena.learners.preprocessing import flips_coins


class Foveated(nn.Module):
    """The mean of a model's logits over a grid of crops, each enlarged to the size of the image.

    A crop has `share` of the image's height and width, rounded to pixels. There are `crops` x
    `crops` of them, spread evenly from edge to edge; a single crop is in the middle.

    Attributes:
        model: A module from images [B, C, H, W] to logits [B, K].
    """

    def __init__(self, model: nn.Module, crops: int, share: float) -> None:
        super().__init__()
        self.model = model
        self._crops, self._share = crops, share

    @property
    def random(self) -> bool:
        """Whether the inner model is random; each crop then has its own random numbers."""
        return flips_coins(self.model)

    def forward(self, x: Tensor, *key: Tensor) -> Tensor:
        """Mean logits [B, K]; `key` [B] is for a random model."""
        size = tuple(x.shape[-2:])
        rows, columns = (self._windows(length) for length in size)
        logits = []
        # One pass per crop: all crops in one pass would not fit into the caches of a CPU.
        for number, (row, column) in enumerate(product(rows, columns)):
            seen = interpolate(x[..., row, column], size, mode="bilinear", align_corners=False)
            logits.append(self.model(seen, *(chance.fold(given, number) for given in key)))
        return torch.stack(logits).mean(0)

    def _windows(self, size: int) -> list[slice]:
        """The windows of the crops along an axis of `size` pixels."""
        left = max(1, round(self._share * size))
        if self._crops == 1:
            starts = [(size - left) // 2]
        else:
            starts = [round(i * (size - left) / (self._crops - 1)) for i in range(self._crops)]
        return [slice(start, start + left) for start in starts]


@dataclass(frozen=True)
class Fovea(Learner):
    """Foveation by fixed crops: Luo et al. 2015 (1511.06292), multi-crop mechanisms [F23].

    Deviations from the paper: no crop depends on where the object is, or seems to be; there are no
    mirror images, since they would change a digit; and the network is trained behind the same crops
    that it is used with. A pass costs crops^2 passes of the architecture.

    Attributes:
        learner: The architecture, for images of the full size.
        crops: Number of crops along each side of the image; crops^2 in total.
        share: Height and width of a crop, as a share of the image's.
    """

    learner: Learner
    crops: Count = 2
    share: Share = 0.8

    def layers(self, shape: tuple[int, ...], classes: int) -> Foveated:
        """The module, for images [C, H, W].

        Raises:
            ValueError: If the inputs are not images.
        """
        if len(shape) != 3:
            raise ValueError(
                f"Fovea crops images [C, H, W], not inputs of shape {list(shape)}; "
                "drop it for features"
            )
        return Foveated(self.learner.layers(shape, classes), self.crops, self.share)
