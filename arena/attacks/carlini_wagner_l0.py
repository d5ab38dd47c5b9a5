"""Carlini & Wagner for L0: an L2 attack that gives up, round by round, what matters least to it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L0
from arena.attacks.engines.boxed import Boxed
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive, Share


@dataclass
class _Round(PerWalk):
    """The descent of the present round, and which features it has.

    Attributes:
        descent: Over the inputs.
        c: What the margin weighs, [L].
        share: Of the changed features, how many are given up at once, [L].
        free: The features that may change, bool [L, ...].
        won: Whether the present round has found a mistake, bool [L].
        solved: Whether any round has, bool [L].
        mistake: The last mistake, [L, ...]; the given input before the first.
        slope: The gradient of the margin there, [L, ...].
    """

    descent: Boxed
    c: Tensor
    share: Tensor
    free: Tensor
    won: Tensor
    solved: Tensor
    mistake: Tensor
    slope: Tensor


@dataclass(frozen=True)
class CarliniWagnerL0(MinimumNorm[_Round]):
    """Carlini & Wagner 2017 (1608.04644), section VI.B: their L0 attack; for L0 spaces.

    Rounds of `CarliniWagner` over the features that are still free. After each round the features
    with the smallest |gradient of the margin * change| at the last mistake are given up: they keep
    their given value. The next round starts from that mistake, without them.

    Differs from the paper, which gives up one feature per round and ends when a round fails. Here a
    share of the changed features is given up at once, and with them all that did not change. After
    a round without a mistake, half that share (at least one feature) is given up at the last
    mistake instead, and c doubles. Otherwise c stays, because the length of the changes does not
    matter.

    Takes `steps` gradients and `steps + 1` passes in all.

    Attributes:
        rounds: How many, of `steps / rounds` steps each.
        weight: The first c.
        lr: Adam's step size, in units of w.
        share: The share of the changed features that is given up after the first round.
    """

    steps: Count = 500
    rounds: Count = 25
    weight: Positive = 1.0
    lr: Positive = 0.1
    share: Share = 0.3

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L0,)
    instead: ClassVar[str] = "strategy=carlini_wagner or carlini_wagner_linf"

    def begin(self, search: Search, walks: Walks[None]) -> _Round:
        """Starts at the input, with every feature free."""
        return _Round(
            Boxed.at(walks.x, search.space.box),
            c=walks.zeros() + self.weight,
            share=walks.zeros() + self.share,
            free=torch.ones_like(walks.x, dtype=torch.bool),
            won=walks.flags(),
            solved=walks.flags(),
            mistake=walks.x,
            slope=torch.zeros_like(walks.x),
        )

    def advance(
        self, search: Search, walks: Walks[_Round], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step of Adam with the free features, or the start of the next round."""
        own, box = walks.own, search.space.box
        won = walks.wide(loss < 0)
        own.won = own.won | (loss < 0)
        own.mistake = torch.where(won, walks.x, own.mistake)
        own.slope = torch.where(won, gradient, own.slope)
        pull = 2 * (walks.x - walks.given)
        slope = (pull + walks.wide(own.c * (loss > 0)) * gradient) * own.free
        moved = own.descent.step(walks.x, slope, self.lr, box)
        moved = torch.where(own.free, moved, walks.given)
        over = (walks.t + 1) % max(self.steps // self.rounds, 1) == 0
        if over.device.type == "cpu" and not bool(over.any()):  # elsewhere asking costs more
            return moved
        lost = over & ~own.won
        own.solved = own.solved | own.won
        own.c = torch.where(lost, 2 * own.c, own.c)
        own.share = torch.where(lost & own.solved, own.share / 2, own.share)
        own.won = own.won & ~over
        again = over & own.solved
        own.free = torch.where(walks.wide(again), self._fewer(walks), own.free)
        start = torch.where(own.free, own.mistake, walks.given)
        return own.descent.restart(again, start, moved, box)

    def _fewer(self, walks: Walks[_Round]) -> Tensor:
        """The features of the last mistake, less those that mattered least, bool [L, ...]."""
        own = walks.own
        change = (own.mistake - walks.given).flatten(1)
        changed = change != 0
        score = (own.slope.flatten(1) * change).abs().masked_fill(~changed, torch.inf)
        dropped = (own.share * changed.sum(1)).floor().clamp(min=1)
        rank = score.argsort(dim=1, stable=True).argsort(dim=1)
        return (changed & (rank >= dropped[:, None])).reshape(walks.x.shape)
