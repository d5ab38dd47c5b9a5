"""Minimum-cost camouflage: the optimal adversary of a linear classifier, who pays for changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.features import FeatureChanges
from arena.attacks.engines import losses
from arena.attacks.engines.linear import LinearLogits, linear
from arena.attacks.engines.spaces import serving
from arena.core import Cost, Player, Strategy, Turn
from arena.costs import MovePrice
from arena.knowledge import View, WhiteBox
from arena.training.classifiers import ModuleClassifier

SLACK = 1e-4
"""How far beyond the boundary, in log-odds, a camouflage has to land: float32 rounds."""


@dataclass(frozen=True)
class MinimumCostCamouflage(Strategy):
    """Dalvi, Domingos, Mausam, Sanghai & Verma, "Adversarial Classification" (KDD 2004), section 4.

    Against log-odds that are linear in the features, every change takes its own amount off the gap
    between the two classes. The cheapest set of changes that closes the gap (the paper's integer
    linear program, MCC) is a knapsack. It is played where its price is within the budget and below
    what the attacker gains by the other answer (the paper's equation A(x)). Other inputs are sent
    as they are. Of several sets of that price it plays the one that takes most off the gap.

    Differs from the paper in the dynamic program. The paper's runs over discretised log-odds, and
    is pseudo-linear in their resolution. This one runs over prices, which are whole numbers, and is
    exact (up to `SLACK`). Its time is features x the highest affordable price for each input.

    If a defender has a `plain` classifier, as `AdversaryAwareBayes` does, the plan is made against
    that, as the paper's adversary makes it. With `persist` the defender itself is asked for its
    answer; where the plan fails, the cheapest set that takes more off the gap is tried next, until
    one succeeds or none is worth its price (then nothing is played). Against a defender that is
    itself linear this changes nothing. Against any other it is a heuristic, and what it finds is a
    lower bound.

    Attributes:
        persist: Whether to go on where the plan fails.
    """

    persist: bool = False

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}
    spaces: ClassVar[tuple[type[FeatureChanges], ...]] = (FeatureChanges,)

    def check(self, player: Player) -> None:
        """Raises ValueError unless features may be changed, each at a price."""
        serving(player, "MinimumCostCamouflage", self.spaces)

    def respond(self, turn: Turn) -> Tensor:
        """The camouflaged inputs, [B, ...].

        Raises:
            ValueError: If the data have more than two classes, or the log-odds are not linear.
        """
        if turn.data.classes != 2:
            raise ValueError(
                f"MinimumCostCamouflage makes one of two classes look like the other, and the data "
                f"have {turn.data.classes}; use data with two"
            )
        view = turn.see("defender", WhiteBox)
        plain = getattr(view.module, "plain", None)
        planned = view if plain is None else view.over(ModuleClassifier(plain, turn.data.classes))
        plan = linear(planned, turn)
        return turn.each_batch(lambda rows: self._camouflage(turn.on(rows), plan, view.on(rows)))

    def _camouflage(self, turn: Turn, plan: LinearLogits, view: WhiteBox) -> Tensor:
        space = serving(turn.player, "MinimumCostCamouflage", self.spaces)
        given, y = turn.data.x, turn.data.y
        logits = plan.logits(given)
        gap = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None])).squeeze(1)
        takes, to = changes(space, given.flatten(1), plan.weight[y] - plan.weight[1 - y])
        prices = space.price_list(takes.shape[1]).to(given.device)
        most = affordable(space, turn.player.cost, y, int(prices.sum()))
        seeking = (logits.argmax(1) == y) & (most > 0)
        moved, need = given.flatten(1).clone(), gap + SLACK
        while bool(seeking.any()):
            rows = seeking.nonzero().squeeze(1)
            chosen = cheapest(takes[rows], prices, need[rows], most[rows])
            found = chosen.any(1)
            rows, chosen = rows[found], chosen[found]
            tried = torch.where(chosen, to[rows], given[rows].flatten(1))
            seeking = torch.zeros_like(seeking)
            if self.persist and len(rows):
                fooled = view.labels(tried.reshape(-1, *given.shape[1:]), rows) != y[rows]
                need[rows] = (takes[rows] * chosen).sum(1) + SLACK
                seeking[rows[~fooled]] = True
                rows, tried = rows[fooled], tried[fooled]
            moved[rows] = tried
        return moved.reshape(given.shape)


def changes(space: FeatureChanges, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The most that a change of each feature takes off a gap of slope `weight` [B, n] at `x`.

    Returns float64 [B, n], 0 where no legal change takes anything off, and where that change leads,
    [B, n].
    """
    low, high = space.box
    up = torch.where(space.may_rise(x), -weight * (high - x.double()), 0.0)
    down = torch.where(space.may_fall(x), weight * (x.double() - low), 0.0)
    to = torch.where(up > down, high, low).to(x.dtype)
    return torch.maximum(up, down).clamp(min=0), to


def affordable(space: FeatureChanges, cost: Cost, y: Tensor, total: int) -> Tensor:
    """The highest price, int64 [B], that is worth having the other of two answers; 0 if none is.

    `total` is the price of all changes. A change that only breaks even is not worth it.
    """
    costs = losses.prices(cost, y, 2, 2).double()
    gain = (costs.gather(1, y[:, None]) - costs.gather(1, 1 - y[:, None])).squeeze(1)
    rate = cost.price if isinstance(cost, MovePrice) else 0.0
    units = torch.arange(1, min(space.budget, total) + 1, device=y.device)
    # Costs are float32: rounding must not make a change that breaks even seem to gain.
    worth = (rate * units < gain[:, None] * (1 - 1e-6)).sum(1)
    mine = torch.ones_like(y, dtype=torch.bool) if space.of_class is None else y == space.of_class
    return torch.where(mine & (gain > 0), worth, 0)


def cheapest(takes: Tensor, prices: Tensor, need: Tensor, most: Tensor) -> Tensor:
    """The cheapest set of items that together take at least `need` [B], bool [B, n]; exact.

    Item i takes off `takes[:, i]` >= 0 and costs `prices[i]`, a whole number above 0. Of several
    sets of the least price, the result is one that takes most; of equal items, the first. The set
    is empty where no set of a price of at most `most` [B] takes enough, or where nothing is needed.
    """
    takes, order = takes.sort(dim=1, descending=True, stable=True)
    price = prices[order]
    units = torch.arange(int(most.max()) + 1, device=takes.device)
    best = takes.new_zeros(len(takes), len(units))  # the most that can be taken for at most `unit`
    taken = []
    for i in range(int((takes > 0).sum(1).max())):
        left = units - price[:, i, None]
        with_it = best.gather(1, left.clamp(min=0)) + takes[:, i, None]
        better = (left >= 0) & (with_it > best)
        taken.append(better)
        best = torch.where(better, with_it, best)
    enough = (best >= need[:, None]) & (units <= most[:, None])
    spent = enough.int().argmax(1)
    chosen = torch.zeros_like(takes, dtype=torch.bool)
    for i in reversed(range(len(taken))):
        has = taken[i].gather(1, spent[:, None]).squeeze(1) & enough.any(1)
        chosen.scatter_(1, order[:, i, None], has[:, None])
        spent = spent - has * price[:, i]
    return chosen
