"""The operations of networks that can be bounded: affine maps, ReLU and max-pooling.

Shapes: there are B examples, and a node holds values [B, *shape]. There are P linear functionals of
a node's values, each of one example; they are rows of coefficients [P, *shape].
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input


class Span(NamedTuple):
    """Lower and upper bounds of every value of a node, [B, *shape] each."""

    lower: Tensor
    upper: Tensor


class Lines(NamedTuple):
    """Linear bounds of a nonlinear node in its input z: low * z <= value <= high * z + offset.

    Attributes:
        low: The slopes of the lower lines, in the shape of the input's coefficients; see
            `Nonlinear.spread`.
        high: The slopes of the upper lines, in the same shape.
        offset: Of the upper lines, [B, *shape] of the node.
    """

    low: Tensor
    high: Tensor
    offset: Tensor


class Operation(ABC):
    """A map from the values of one or more nodes to those of the next."""

    mixes: int = 0
    """1 if an output value depends on many input values, so that intervals lose precision."""

    @abstractmethod
    def __call__(self, *given: Tensor) -> Tensor:
        """The values [B, *shape] of the node, from those of its inputs."""

    def span(self, *given: Span) -> Span:
        """Exact bounds of each value over intervals of the inputs; here, of a monotone map."""
        return Span(self(*(s.lower for s in given)), self(*(s.upper for s in given)))

    @abstractmethod
    def transposed(self, a: Tensor) -> Tensor:
        """The coefficients [P, ...] of each input that equal coefficients `a` of the output.

        For an affine map, those of its linear part.
        """


class Nonlinear(Operation):
    """A monotone map that lines bound."""

    @abstractmethod
    def open(self, given: Span) -> Tensor:
        """Whether tighter bounds of an input value could change the lines, bool [B, *shape]."""

    @abstractmethod
    def lines(self, given: Span, adaptive: bool) -> Lines:
        """Linear bounds over intervals of the input; exact where the intervals decide the value.

        Args:
            given: The intervals.
            adaptive: Whether the lower line is chosen by the interval (1811.00866). Otherwise it
                has the slope of the upper line (1711.00851).
        """

    @abstractmethod
    def spread(self, a: Tensor) -> Tensor:
        """The coefficients [P, *shape], with axes that broadcast with the slopes."""


class Sum(Operation):
    """A residual addition."""

    mixes = 1

    def __call__(self, *given: Tensor) -> Tensor:
        """The sum of two inputs of equal shapes."""
        first, second = given
        return first + second

    def transposed(self, a: Tensor) -> Tensor:
        """The same coefficients for each input."""
        return a


class Reshape(Operation):
    """The same values [B, *before] in another shape [B, *after]."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        self._before, self._after = tuple(before), tuple(after)

    def __call__(self, *given: Tensor) -> Tensor:
        """The values in the new shape."""
        return given[0].reshape(-1, *self._after)

    def transposed(self, a: Tensor) -> Tensor:
        """Coefficients in the old shape."""
        return a.reshape(-1, *self._before)


class Affine(Operation):
    """A map z -> W z + b."""

    @abstractmethod
    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| radius: the most that outputs move if inputs move by at most `radius` >= 0."""

    def span(self, *given: Span) -> Span:
        """Exact bounds by middle and half-width (1810.12715, equation 5)."""
        lower, upper = given[0]
        middle, half = self((upper + lower) / 2), self.magnitude((upper - lower) / 2)
        return Span(middle - half, middle + half)


class Scale(Affine):
    """Each value times its own factor, plus its own shift, as in normalization layers.

    Args:
        factor: Broadcasts to the node's shape.
        shift: Broadcasts to the node's shape.
    """

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        self._factor, self._shift = factor, shift

    def __call__(self, *given: Tensor) -> Tensor:
        """Each value times `factor`, plus `shift`."""
        return given[0] * self._factor + self._shift

    def magnitude(self, radius: Tensor) -> Tensor:
        """|factor| * radius."""
        return radius * self._factor.abs()

    def transposed(self, a: Tensor) -> Tensor:
        """Coefficients times the factor."""
        return a * self._factor


class FullyConnected(Affine):
    """A fully connected layer with weight [n, m] and bias [n] or None."""

    mixes = 1

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, *given: Tensor) -> Tensor:
        """W z + b."""
        return F.linear(given[0], self._weight, self._bias)

    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| radius."""
        return F.linear(radius, self._weight.abs())

    def transposed(self, a: Tensor) -> Tensor:
        """A W."""
        return a @ self._weight


class Convolution(Affine):
    """A convolution of images [C, H, W] padded with 0; mean pooling is one, too."""

    mixes = 1

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        before: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        self._weight, self._bias, self._before = weight, bias, tuple(before)
        self._how = (tuple(stride), tuple(padding), tuple(dilation), groups)

    def __call__(self, *given: Tensor) -> Tensor:
        """The convolution."""
        return F.conv2d(given[0], self._weight, self._bias, *self._how)

    def magnitude(self, radius: Tensor) -> Tensor:
        """The convolution with the weights' absolute values."""
        return F.conv2d(radius, self._weight.abs(), None, *self._how)

    def transposed(self, a: Tensor) -> Tensor:
        """The transposed convolution."""
        if self._how[-1] == 1 and self._weight[0].numel() <= 2 * len(self._weight):
            # With few input channels, as in a first layer, a third of the time of torch's own.
            columns = self._weight.flatten(1).T @ a.flatten(2)
            return _folded(columns, self._before, self._weight.shape[2:], *self._how[:-1])
        shape = (len(a), *self._before)
        made: Tensor = conv2d_input(shape, self._weight, a, *self._how)
        return made


class ReLU(Nonlinear):
    """max(z, 0)."""

    def __call__(self, *given: Tensor) -> Tensor:
        """max(z, 0)."""
        return given[0].relu()

    def open(self, given: Span) -> Tensor:
        """Whether the sign is open."""
        return (given.lower < 0) & (given.upper > 0)

    def lines(self, given: Span, adaptive: bool) -> Lines:
        """The upper line is the chord, the lower one a line through 0.

        The lower line has the chord's slope or, if `adaptive`, the slope of 0 and 1 that leaves the
        smaller area.
        """
        lower, upper = given
        unsure = self.open(given)
        on = (lower >= 0).to(lower.dtype)
        chord = torch.where(unsure, upper / torch.where(unsure, upper - lower, 1.0), on)
        low = torch.where(unsure, (upper >= -lower).to(lower.dtype), on) if adaptive else chord
        return Lines(low, chord, torch.where(unsure, -chord * lower, 0.0))

    def spread(self, a: Tensor) -> Tensor:
        """The coefficients, unchanged."""
        return a

    def transposed(self, a: Tensor) -> Tensor:
        """The coefficients, unchanged."""
        return a


class MaxPool(Nonlinear):
    """The maximum of each window of [C, H, W]; slopes are [B, C, window, rows, columns]."""

    def __init__(
        self,
        before: Sequence[int],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> None:
        self._before, self._padding = tuple(before), padding
        self._kernel, self._stride, self._dilation = kernel, stride, dilation

    def __call__(self, *given: Tensor) -> Tensor:
        """The maxima [B, C, rows, columns]."""
        return F.max_pool2d(given[0], self._kernel, self._stride, self._padding, self._dilation)

    def open(self, given: Span) -> Tensor:
        """True everywhere."""
        return torch.ones_like(given.lower, dtype=torch.bool)

    def lines(self, given: Span, adaptive: bool) -> Lines:
        """The lower line is the value z_i that has the largest lower bound.

        The upper line is the chord, as for ReLU, of max(z_j, m), where z_j has the largest upper
        bound u_j and m is the second largest upper bound. It is never above the constant u_j. Both
        lines are exact if the lower bound of z_j is at least m.
        """
        lower, upper = self._windows(given.lower), self._windows(given.upper)
        surest = lower.argmax(2, keepdim=True)
        top, places = upper.topk(2, dim=2) if upper.shape[2] > 1 else (upper, surest)
        largest = places[:, :, :1]
        most, second = top[:, :, :1], top[:, :, 1:2] if top.shape[2] > 1 else top - math.inf
        least = lower.gather(2, largest)
        unsure = least < second
        flat = most <= second  # two upper bounds are equal: the chord is constant
        rise = torch.where(unsure & ~flat, most - second, 0.0)
        slope = torch.where(unsure, rise / torch.where(unsure & ~flat, most - least, 1.0), 1.0)
        offset = torch.where(unsure, torch.where(unsure, second, 0.0) - slope * least, 0.0)
        surest = torch.where(unsure, surest, largest)
        zeros = torch.zeros_like(lower)
        low = zeros.scatter(2, surest, torch.ones_like(slope))
        return Lines(low, zeros.scatter(2, largest, slope), offset.squeeze(2))

    def spread(self, a: Tensor) -> Tensor:
        """An axis for the window: [P, C, 1, rows, columns]."""
        return a.unsqueeze(2)

    def transposed(self, a: Tensor) -> Tensor:
        """Coefficients [P, C, window, rows, columns], summed over the windows."""
        columns = a.flatten(3).flatten(1, 2)
        how = (self._kernel, self._stride, self._padding, self._dilation)
        return _folded(columns, self._before, *how)

    def _windows(self, x: Tensor) -> Tensor:
        """[B, C, H, W] as [B, C, window, rows, columns], padded with minus infinity."""
        down, right = self._padding
        padded = F.pad(x, (right, right, down, down), value=-math.inf)
        made = self(x).shape[2:]
        columns = F.unfold(padded, self._kernel, self._dilation, 0, self._stride)
        return columns.reshape(len(x), x.shape[1], -1, *made)


def _folded(
    columns: Tensor,
    before: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The values [P, C * window, windows] of sliding windows, summed where they overlap."""
    (high, wide), (down, right) = before[1:], padding
    size = (high + 2 * down, wide + 2 * right)
    padded = F.fold(columns, size, tuple(kernel), tuple(dilation), 0, tuple(stride))
    return padded[:, :, down : down + high, right : right + wide]
