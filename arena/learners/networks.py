"""Two small networks: a multilayer perceptron and a convolutional net."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import nn

from arena.classification import Learner
from arena.fields import Count


@dataclass(frozen=True)
class MLP(Learner):
    """Fully connected ReLU layers. Inputs [B, ...] of any shape.

    Attributes:
        hidden: Widths of the hidden layers; none makes a linear model (softmax regression).
    """

    hidden: tuple[Count, ...] = (128,)

    def layers(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Flatten, then Linear and ReLU for each hidden width, then Linear."""
        widths = (prod(shape), *self.hidden)
        modules: list[nn.Module] = [nn.Flatten()]
        for width, following in pairwise(widths):
            modules += [nn.Linear(width, following), nn.ReLU()]
        return nn.Sequential(*modules, nn.Linear(widths[-1], classes))


@dataclass(frozen=True)
class CNN(Learner):
    """3 x 3 convolutions with ReLU and 2 x 2 max-pooling, then one hidden layer.

    Inputs [B, C, H, W]; H and W are halved, rounded down, once per entry of `channels`.

    Attributes:
        channels: Channels of each convolution.
        hidden: Width of the hidden layer.
    """

    channels: tuple[Count, ...] = (8, 16)
    hidden: Count = 64

    def layers(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The module.

        Raises:
            ValueError: If the inputs are not images, or are too small for the halvings.
        """
        halvings = len(self.channels)
        if len(shape) != 3 or min(shape[1:]) >> halvings < 1:
            raise ValueError(
                f"CNN with {halvings} halvings cannot take inputs of shape {list(shape)}; "
                "use learner=mlp, or fewer channels"
            )
        modules: list[nn.Module] = []
        widths = (shape[0], *self.channels)
        for before, after in pairwise(widths):
            modules += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        flat = widths[-1] * (shape[1] >> halvings) * (shape[2] >> halvings)
        head = [nn.Flatten(), nn.Linear(flat, self.hidden), nn.ReLU()]
        return nn.Sequential(*modules, *head, nn.Linear(self.hidden, classes))
