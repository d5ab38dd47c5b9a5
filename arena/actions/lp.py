"""Lp balls, intersected with the data's box: how far an attacker may move an input.

A space is {z : ||z - given||_p <= eps, low <= z <= high}, one for each example. `given` is assumed
to lie inside the box. A coordinate that moves away from `given` can meet only one side of the box.
So a projection answers one question (`_moved`): given the distance that each coordinate should
move, and the distance to its side of the box, how far does it move?

Tolerances:
    * The box is exact, with its ends rounded to float32.
    * A size may exceed eps by the share `Lp.tolerance`, for attacks that round in float32. At
      eps = 0 nothing may move. L0 counts exactly.
    * A projection is rounded towards `given`. Its size is at most eps (to 1e-14 relative), it is
      idempotent to the bit, and each coordinate is within 1e-7 of the nearest point's, for a box of
      size 1 (one float32 step, and cancellation in L2). L-inf works in float32, the others in
      float64.

Shapes: `given`, `output`, `gradient` are [B, ...] float32; `key` [B] as in `chance`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from arena import chance
from arena.classification import Perturbations
from arena.fields import NonNegative, Whole


@dataclass(frozen=True)
class Lp(Perturbations):
    """What all norms share.

    Attributes:
        eps: The radius, in the units of the input; for L0, a number of entries.
        box: Lowest and highest input value.

    Raises:
        ValueError: If eps is negative or NaN, or the box is empty or not finite (in float32).
    """

    tolerance: ClassVar[float] = 1e-5

    eps: NonNegative
    box: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self._box()
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                f"{type(self).__name__}.box = {self.box} must be finite, the low end below the high"
            )

    def contains(self, given: Tensor, output: Tensor) -> Tensor:
        """Whether each output [B] is finite, inside the box, and at most eps from `given`.

        False for all if the shapes differ.
        """
        if output.shape != given.shape:
            return torch.zeros(len(given), dtype=torch.bool, device=given.device)
        low, high = self._box()
        values = _rows(output)
        inside = ((values >= low) & (values <= high)).all(1)  # NaN and infinity fail this
        return inside & (self.size(given, output) <= self.eps * (1 + self.tolerance))

    def explain(self, given: Tensor, output: Tensor) -> str:
        """The first reason, with figures, why a single output (B = 1) is illegal."""
        if output.shape != given.shape:
            return f"shape {tuple(output.shape)} instead of {tuple(given.shape)}"
        if not bool(output.isfinite().all()):
            return "not finite"
        low, high = self._box()
        beyond = torch.maximum(low - output, output - high).flatten()
        if bool((beyond > 0).any()):
            value = float(output.flatten()[beyond.argmax()])
            return f"value {value:.6g} outside the box [{self.box[0]:g}, {self.box[1]:g}]"
        size = float(self.size(given, output))
        return f"displacement {size:.6g} in {type(self).__name__}, eps {self.eps:g}"

    def project(self, given: Tensor, output: Tensor) -> Tensor:
        """The legal point nearest to `output` in L2; legal outputs stay the same to the bit.

        An output with NaN or infinity has no nearest point. It is returned unchanged, and
        `contains` rejects it: a projection must not hide a bug in an attack.
        """
        towards_low, towards_high = self._room(given)
        wanted = _change(given, output)
        room = torch.where(wanted > 0, towards_high, towards_low)
        far = wanted.abs()
        moved = self._landed(given, wanted.sign() * self._moved(far, room))
        # Sums of float32 values cannot overflow in float64, and are cheaper to check.
        final = self.contains(given, output) | ~far.sum(1).isfinite()
        return torch.where(final.reshape(-1, *(1,) * (given.dim() - 1)), output, moved)

    def shrunk(self, share: float) -> Self:
        """The same ball with its radius multiplied by `share`."""
        return replace(self, eps=share * self.eps)

    @abstractmethod
    def _moved(self, wanted: Tensor, room: Tensor) -> Tensor:
        """Distances t [B, n] with 0 <= t <= room and size at most eps, nearest to `wanted` in L2.

        Both arguments are non-negative float64 [B, n].
        """

    def _box(self) -> tuple[float, float]:
        """The ends of the box in float32: 0.1, for example, is rounded to its float32 neighbor."""
        low, high = torch.tensor(self.box, dtype=torch.float32).tolist()
        return low, high

    def _room(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """The distances, float64 [B, n], from `given` down to `low` and up to `high`."""
        low, high = self._box()
        x = _rows(given).double()
        return x - low, high - x

    def _landed(self, given: Tensor, displacement: Tensor) -> Tensor:
        """`given` plus a float64 displacement [B, n], rounded towards `given` to float32.

        Rounding to the nearest instead would add up to a size above eps.
        """
        x = _rows(given)
        low, high = self._box()
        z = (x.double() + displacement).to(x.dtype).clamp(low, high)
        overshot = (z.double() - x.double()).abs() > displacement.abs()
        return torch.where(overshot, z.nextafter(x), z).reshape(given.shape)


@dataclass(frozen=True)
class Linf(Lp):
    """Every input value moves by at most `eps`, in the units of the input."""

    def size(self, given: Tensor, output: Tensor) -> Tensor:
        """The largest change [B] of any value."""
        return _change(given, output).abs().amax(1).to(given.dtype)

    def project(self, given: Tensor, output: Tensor) -> Tensor:
        """The legal point nearest to `output`: each value is clipped to its interval.

        Works in float32, since a descent projects in every step. The ends of the interval are
        rounded and then moved one float32 step towards `given`, so that rounding cannot make a size
        above eps. NaN stays NaN, and `contains` rejects it.
        """
        return self.projection(given)(output)

    def projection(self, given: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` around the same inputs; the ends of the intervals are computed once."""
        low, high = self._box()
        lowest = (given - self.eps).nextafter(given).clamp(min=low)
        highest = (given + self.eps).nextafter(given).clamp(max=high)
        return partial(torch.clamp, min=lowest, max=highest)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign of the gradient (the step of FGSM, 1412.6572)."""
        return gradient.sign()

    def shortened(self, displacement: Tensor, size: Tensor) -> Tensor:
        """The displacement with each entry clipped to `size` [B]."""
        most = _wide(size, displacement)
        return displacement.clamp(-most, most)

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """Uniform over the space: each value is uniform over its own interval inside the box.

        Clipping uniform noise to the box instead would put too many values on the box's sides.
        """
        down, up = (room.clamp(max=self.eps) for room in self._room(given))
        share = chance.uniform(key, down.shape[1:]).double()
        return self._landed(given, share * (down + up) - down)

    def _moved(self, wanted: Tensor, room: Tensor) -> Tensor:
        return wanted.minimum(room).clamp(max=self.eps)


@dataclass(frozen=True)
class L2(Lp):
    """An input moves by at most `eps` in Euclidean length over all its values."""

    def size(self, given: Tensor, output: Tensor) -> Tensor:
        """The Euclidean length [B] of the change."""
        length: Tensor = torch.linalg.vector_norm(_change(given, output), dim=1)
        return length.to(given.dtype)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The gradient over its length; in float64, since squares of small entries underflow."""
        return _unit(_rows(gradient).double()).to(gradient.dtype).reshape(gradient.shape)

    def shortened(self, displacement: Tensor, size: Tensor) -> Tensor:
        """The displacement, scaled down to length `size` [B] if it is longer."""
        length = torch.linalg.vector_norm(_rows(displacement), dim=1)
        scale = (size / torch.where(length == 0, 1.0, length)).clamp(max=1.0)
        return displacement * _wide(scale, displacement)

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """Uniform in the ball, then projected onto the space.

        This is not uniform over the intersection of ball and box, for which there is no cheap
        sampler: points outside the box end on its surface. The radius is capped at the box's
        diagonal.
        """
        n = _rows(given).shape[1]
        radius = min(self.eps, math.sqrt(n) * (self.box[1] - self.box[0]))
        direction = _unit(chance.normal(chance.fold(key, 0), (n,)).double())
        length = radius * chance.uniform(chance.fold(key, 1), (1,)).double() ** (1 / n)
        return self.project(given, _added(given, length * direction))

    def _moved(self, wanted: Tensor, room: Tensor) -> Tensor:
        # KKT: t = min(s * wanted, room) with one s in [0, 1] for all coordinates, the largest one
        # that keeps sum t^2 <= eps^2. Sort the coordinates by the s at which they reach their room
        # (or s = 1). Between neighbors the sum is quadratic in s, and solved in closed form.
        ends, order = torch.where(wanted > room, room / wanted, 1.0).sort(dim=1)
        at_end = torch.minimum(wanted, room).square().gather(1, order)
        free = wanted.square().gather(1, order)
        # Entry k: the first k coordinates have reached their room. The rest is summed from the far
        # end, since a difference of two prefix sums would lose small coordinates to large ones.
        ended = pad(at_end.cumsum(1), (1, 0))
        left = pad(free.flip(1).cumsum(1).flip(1), (0, 1))
        reached = ended[:, 1:] + ends.square() * left[:, 1:] <= self.eps * self.eps
        k = reached.sum(1, keepdim=True)
        ended, left = ended.gather(1, k), left.gather(1, k)
        scale = ((self.eps * self.eps - ended).clamp(min=0) / left).sqrt()
        # For a far output, the rest of eps^2 may round to 0: keep the coordinates that have ended.
        scale = scale.maximum(pad(ends, (1, 0)).gather(1, k))
        return torch.minimum(torch.where(left > 0, scale, 1.0) * wanted, room)


@dataclass(frozen=True)
class L1(Lp):
    """The changes of all input values add up to at most `eps`, in the units of the input."""

    def size(self, given: Tensor, output: Tensor) -> Tensor:
        """The sum [B] of the absolute changes."""
        return _change(given, output).abs().sum(1).to(given.dtype)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign of the gradient at its largest entry (the first of equals), 0 elsewhere."""
        rows = _rows(gradient)
        place = rows.abs().argmax(dim=1, keepdim=True)
        signs = rows.gather(1, place).sign()
        return torch.zeros_like(rows).scatter(1, place, signs).reshape(gradient.shape)

    def shortened(self, displacement: Tensor, size: Tensor) -> Tensor:
        """The displacement, shrunk by soft thresholding to an L1 size of at most `size` [B].

        Duchi et al., ICML 2008, figure 1.
        """
        rows = _rows(displacement)
        length = rows.abs()
        largest = length.sort(dim=1, descending=True).values
        excess = largest.cumsum(1) - size[:, None]
        count = torch.arange(1, rows.shape[1] + 1, device=rows.device)
        k = (largest * count > excess).sum(1, keepdim=True).clamp(min=1)
        level = (excess.gather(1, k - 1) / k).clamp(min=0)
        return (rows.sign() * (length - level).clamp(min=0)).reshape(displacement.shape)

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """Uniform in the ball (Barthe et al., Ann. Probab. 33, 2005, Theorem 1), then projected.

        This is not uniform over the intersection of ball and box, see `L2.sample`. The radius is
        capped at the sum of the box's sides.
        """
        n = _rows(given).shape[1]
        radius = min(self.eps, n * (self.box[1] - self.box[0]))
        waits = -torch.log1p(-chance.uniform(chance.fold(key, 0), (n + 1,)).double())
        sign = torch.where(chance.uniform(chance.fold(key, 1), (n,)) < 0.5, -1.0, 1.0)
        share = waits[:, :n] / waits.sum(1, keepdim=True)
        return self.project(given, _added(given, radius * share * sign))

    def _moved(self, wanted: Tensor, room: Tensor) -> Tensor:
        # KKT (2103.01208, Prop. 1): t = clip(wanted - level, 0, room), with the smallest level
        # >= 0 that keeps sum t <= eps. As the level falls, a coordinate starts to move at
        # level = wanted and stops at level = wanted - room. In between, the sum is linear.
        wanted, order = wanted.sort(dim=1, descending=True)
        room = room.gather(1, order)
        # A gap wider than any room only means that the coordinates move one after the other, so it
        # may shrink to that room. Near an output of 1e30, a float64 level could not distinguish the
        # start of a coordinate from its stop.
        gaps = wanted - pad(wanted[:, 1:], (0, 1))
        gaps = gaps.minimum(room.amax(1, keepdim=True))
        wanted = gaps.flip(1).cumsum(1).flip(1)
        levels, event = torch.cat([wanted, wanted - room], 1).sort(dim=1, descending=True)
        slope = torch.where(event < wanted.shape[1], 1, -1).cumsum(1)  # coordinates that are moving
        gained = slope[:, :-1] * (levels[:, :-1] - levels[:, 1:])
        total = pad(gained.cumsum(1), (1, 0))
        k = (total <= self.eps).sum(1, keepdim=True) - 1
        left = self.eps - total.gather(1, k)
        # The slope is 0 only after the last stop, where every lower level gives the same result.
        level = (levels.gather(1, k) - left / slope.gather(1, k).clamp(min=1)).clamp(min=0)
        moved = (wanted - level).clamp(min=0).minimum(room)
        return torch.zeros_like(moved).scatter(1, order, moved)


@dataclass(frozen=True)
class L0(Lp):
    """At most `eps` features (entries of the tensor) change, to any values inside the box."""

    tolerance: ClassVar[float] = 0.0

    eps: Whole

    def size(self, given: Tensor, output: Tensor) -> Tensor:
        """The number [B] of entries that differ."""
        return (_rows(given) != _rows(output)).sum(1).to(given.dtype)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign of the gradient at its eps largest entries (the first of equals), 0 elsewhere.

        In L0 the length of a change does not count. It is set to the box's width over eps, so that
        eps times this displacement moves eps features across the whole box.
        """
        rows = _rows(gradient)
        low, high = self._box()
        places = rows.abs().argsort(dim=1, descending=True, stable=True)[:, : self.eps]
        signs = rows.gather(1, places).sign() * ((high - low) / max(self.eps, 1))
        return torch.zeros_like(rows).scatter(1, places, signs).reshape(gradient.shape)

    def shrunk(self, share: float) -> Self:
        """The same space with a share of the features, rounded up."""
        return replace(self, eps=math.ceil(share * self.eps))

    def shortened(self, displacement: Tensor, size: Tensor) -> Tensor:
        """The displacement's largest entries (the first of equals), `size` [B] of them."""
        rows = _rows(displacement)
        order = rows.abs().argsort(dim=1, descending=True, stable=True)
        kept = torch.arange(rows.shape[1], device=rows.device) < size[:, None].floor()
        kept = torch.zeros_like(kept).scatter(1, order, kept)
        return torch.where(kept, rows, 0.0).reshape(displacement.shape)

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """A uniformly random set of eps features, each set to a uniform value in the box."""
        low, high = self._box()
        x = _rows(given)
        order = chance.uniform(chance.fold(key, 0), x.shape[1:]).argsort(dim=1, stable=True)
        chosen = order[:, : self.eps]
        value = low + chance.uniform(chance.fold(key, 1), x.shape[1:]).double() * (high - low)
        value = value.to(x.dtype).clamp(low, high).gather(1, chosen)
        return x.scatter(1, chosen, value).reshape(given.shape)

    def _moved(self, wanted: Tensor, room: Tensor) -> Tensor:
        # Moving by t reduces the squared distance by wanted^2 - (wanted - t)^2.
        best = torch.minimum(wanted, room)
        gain = best * (2 * wanted - best)
        chosen = gain.argsort(dim=1, descending=True, stable=True)[:, : self.eps]
        return torch.zeros_like(best).scatter(1, chosen, best.gather(1, chosen))


def _rows(x: Tensor) -> Tensor:
    """[B, ...] as [B, n]; unlike `flatten`, also for empty tensors."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """`values` [B] with as many dimensions as `x` [B, ...]."""
    return values.reshape(-1, *(1,) * (x.dim() - 1))


def _change(given: Tensor, output: Tensor) -> Tensor:
    """The displacement, float64 [B, n]: exact, unlike a float32 one."""
    return _rows(output).double() - _rows(given).double()


def _added(given: Tensor, displacement: Tensor) -> Tensor:
    """`given` plus a float64 displacement [B, n], in the shape and type of `given`."""
    return (_rows(given).double() + displacement).to(given.dtype).reshape(given.shape)


def _unit(v: Tensor) -> Tensor:
    """Each row [B, n] over its Euclidean length; rows of zeros stay."""
    length = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return v / torch.where(length == 0, 1.0, length)
