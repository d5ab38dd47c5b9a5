"""What descents without gradients share: a gradient estimated from differences of scores."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.scored import Scored, ScoreSearch
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.walks import wide
from arena.classification import Perturbations
from arena.core import Player
from arena.fields import Count, Positive


@dataclass(frozen=True)
class EstimatedDescent(ScoreSearch):
    """Steps against estimated gradients, projected; the subclass says how to probe and how to step.

    The estimate of an example at z is the mean, over pairs of probes z + d u and z - d u, of (f(z +
    d u) - f(z - d u)) / 2 d u. Here f is the search's `guide`, and d is `probe` times the width of
    the box. The walk starts at the given input. Every point on it is asked about, and the best is
    played. An example also leaves when fewer than three queries are left: a pair and a step. If it
    can pay for fewer pairs than it wants, it estimates from those. It takes at most `1 + steps * (2
    * pairs + 1)` queries per example.

    Probes are clipped to the box, not to the ball, and are not played. A pair with scores that are
    not finite counts as a difference of zero. Dividing by the probe magnifies the last bit of a
    score: results are independent of the batch size up to that rounding.

    Attributes:
        steps: Estimates and steps per example.
        pairs: Pairs of probes per estimate.
        probe: Distance of a probe in each direction, as a share of the box's width.
    """

    steps: Count
    pairs: Count
    probe: Positive

    moments: ClassVar[int]
    """How many running means the steps remember."""

    @abstractmethod
    def directions(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Random directions u [n, *shape], of unit variance in every entry."""

    @abstractmethod
    def stepped(
        self, x: Tensor, gradient: Tensor, memory: Tensor, t: int, space: Perturbations
    ) -> tuple[Tensor, Tensor]:
        """The next point [n, ...], not yet projected, and the next memory [moments, n, ...].

        Args:
            x: Where the walks are, [n, ...].
            gradient: The estimate there, [n, ...].
            memory: The running means, [moments, n, ...]; zero before the first step.
            t: The number of the step, from 1.
            space: The player's space.
        """

    def run(self, search: Scored, player: Player) -> None:
        """Offers every point on the walks."""
        space, x = serving(player, type(self).__name__, self.spaces), search.given.clone()
        memory = torch.zeros(self.moments, *x.shape, device=x.device)
        for step, on in search.steps(self.steps, queries=3):
            t, here = step + 1, x[on]
            gradient = self._estimate(search, space, on, here, chance.fold(search.keys[on], t))
            moved, memory[:, on] = self.stepped(here, gradient, memory[:, on], t, space)
            x[on] = space.project(search.given[on], moved)
            search.offer(on, x[on])

    def _estimate(
        self, search: Scored, space: Perturbations, on: Tensor, x: Tensor, key: Tensor
    ) -> Tensor:
        """The gradient [n, ...] of the guide at `x` [n, ...].

        As many probes are asked about together as the batch size allows. They are added up one
        after the other, so that the order does not depend on the batch size.
        """
        low, high = space.box
        pairs = ((search.view.remaining(search.rows[on]) - 1) // 2).clamp(max=self.pairs)
        together = max(search.batch_size // (2 * len(on)), 1)
        total, most = torch.zeros_like(x), int(pairs.max())
        for first in range(0, most, together):
            pair = torch.arange(first, min(first + together, most), device=x.device)
            owner = torch.arange(len(on), device=x.device).repeat(len(pair))
            pair = pair.repeat_interleave(len(on))
            asked = pair < pairs[owner]
            owner, pair = owner[asked], pair[asked]
            u = self.directions(chance.fold(key[owner], pair), x.shape[1:])
            shift = self.probe * (high - low) * u
            # The two probes of a pair are neighbors however many pairs come together, because a
            # random defender flips its coins in this order.
            ends = torch.stack([x[owner] + shift, x[owner] - shift], 1).flatten(0, 1)
            _, value = search.ask(on[owner].repeat_interleave(2), ends.clamp(low, high))
            up, down = value.reshape(-1, 2).unbind(1)
            slope = ((up - down) / (2 * self.probe * (high - low))).nan_to_num(0.0, 0.0, 0.0)
            # One probe of each owner at a time, so that the order of the sum is fixed.
            for i in range(first, min(first + together, most)):
                part = pair == i
                total[owner[part]] += wide(slope[part], x) * u[part]
        return total / wide(pairs, x)
