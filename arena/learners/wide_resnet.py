"""Wide residual networks: the usual classifier of CIFAR-sized images."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from arena.classification import Learner
from arena.fields import Count


@dataclass(frozen=True)
class WideResNet(Learner):
    """Zagoruyko & Komodakis 2016 (1605.07146), Table 1: WRN-depth-width, without dropout.

    A 3 x 3 convolution; three groups of pre-activated blocks with two such convolutions each, the
    second and third group at half the resolution of the group before; the mean over the plane; a
    linear layer. Inputs [B, C, H, W] of any H and W. WRN-28-10 has depth 28 and width 10.

    Attributes:
        depth: Number of layers: 6 n + 4 for n blocks per group.
        width: Channels of the three groups, as a multiple of 16, 32 and 64.
    """

    depth: Count
    width: Count

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(
                f"WideResNet.depth = {self.depth} must be 6 n + 4: 10, 16, 22, 28, ..."
            )

    def layers(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The module, for images [C, H, W].

        Raises:
            ValueError: If the inputs are not images.
        """
        if len(shape) != 3:
            raise ValueError(
                f"WideResNet takes images [C, H, W], not inputs of shape {list(shape)}; "
                "use learner=mlp"
            )
        widths = (16, *(self.width * base for base in (16, 32, 64)))
        modules: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)]
        for group, (before, after) in enumerate(pairwise(widths)):
            modules.append(_Block(before, after, stride=2 if group else 1))
            modules += [_Block(after, after, stride=1) for _ in range((self.depth - 4) // 6 - 1)]
        head = [nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*modules, *head, nn.Linear(widths[-1], classes))


class _Block(nn.Module):
    """x + convolutions(x); if the shape changes, a 1 x 1 convolution of the activated x for x."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.rest = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
        )
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the block for `x` [B, C, H, W]."""
        active = self.first(x)
        kept = x if self.shortcut is None else self.shortcut(active)
        moved: Tensor = kept + self.rest(active)
        return moved
