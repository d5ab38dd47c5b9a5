"""Changes of features, each with a price (Dalvi et al., KDD 2004, section 2)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from arena import chance
from arena.core import ActionSpace, Labelled
from arena.fields import Count, Whole


@dataclass(frozen=True)
class FeatureChanges(ActionSpace):
    """Some features of an input change; the sum of their prices is at most the budget.

    A feature (an entry of the tensor) that changes moves to one end of the box: for binary data, a
    word is added or removed. `given` and `output` are [B, ...] inside the box.

    Attributes:
        budget: The most that the changes of one input may cost, in whole units.
        prices: Price of changing a feature in whole units: one number for all features, or one for
            each. `costs.MovePrice` says what a unit is worth.
        direction: Whether features may only rise ("up": the paper's scenario in which words are
            added), only fall, or both.
        of_class: The only class whose inputs may change (the paper's positives); None: all.
        box: Lowest and highest value of the data.
    """

    budget: Whole = 10
    prices: Count | tuple[Count, ...] = 1
    direction: Literal["both", "up", "down"] = "both"
    of_class: Whole | None = 1
    box: tuple[float, float] = (0.0, 1.0)

    def price_list(self, features: int) -> Tensor:
        """The price of each feature, int64 [features].

        Raises:
            ValueError: If the number of prices is not the number of features.
        """
        if isinstance(self.prices, int):
            return torch.full((features,), self.prices)
        if len(self.prices) != features:
            raise ValueError(
                f"FeatureChanges has {len(self.prices)} prices, but inputs have {features} "
                "features; give one for each, or one number for all"
            )
        return torch.tensor(self.prices)

    def price(self, given: Labelled, output: Tensor) -> Tensor:
        """The sum [B] of the prices of the features that changed."""
        return self._spent(given.x, output).float()

    def _spent(self, given: Tensor, output: Tensor) -> Tensor:
        changed = (output != given).flatten(1)
        return (changed * self.price_list(changed.shape[1]).to(given.device)).sum(1)

    def may_rise(self, given: Tensor) -> Tensor:
        """Whether each feature may go to the upper end of the box, bool [B, ...]."""
        return (given < self.box[1]) & (self.direction != "down")

    def may_fall(self, given: Tensor) -> Tensor:
        """Whether each feature may go to the lower end of the box, bool [B, ...]."""
        return (given > self.box[0]) & (self.direction != "up")

    def contains(self, given: Tensor, output: Tensor) -> Tensor:
        """Whether each output is legal, its class aside, bool [B]; exact."""
        if output.shape != given.shape:
            return torch.zeros(len(given), dtype=torch.bool, device=given.device)
        return self._reached(given, output).flatten(1).all(1) & (
            self._spent(given, output) <= self.budget
        )

    def _reached(self, given: Tensor, output: Tensor) -> Tensor:
        """Whether each feature of the output can be reached at all, bool [B, ...]."""
        low, high = self.box
        risen = (output == high) & self.may_rise(given)
        fallen = (output == low) & self.may_fall(given)
        return (output == given) | risen | fallen

    def permits(self, given: Labelled, output: Tensor) -> Tensor:
        """Whether each output is legal, bool [B]; only inputs of `of_class` may change."""
        legal = self.contains(given.x, output)
        if self.of_class is None or output.shape != given.x.shape:
            return legal
        same = (output == given.x).flatten(1).all(1)
        return legal & ((given.y == self.of_class) | same)

    def sample(self, given: Tensor, key: Tensor) -> Tensor:
        """Changes features in random order until the budget is spent, [B, ...].

        The outputs are legal for `contains`; classes, which it does not know, play no part.
        """
        x = given.flatten(1)
        prices = self.price_list(x.shape[1]).to(x.device)
        rises, falls = self.may_rise(x), self.may_fall(x)
        up = chance.uniform(chance.fold(key, 1), x.shape[1:]) < 0.5
        up = torch.where(rises & falls, up, rises)
        order = chance.uniform(chance.fold(key, 0), x.shape[1:]).argsort(dim=1, stable=True)
        cost = (prices * (rises | falls)).gather(1, order).cumsum(1)
        bought = torch.zeros_like(rises).scatter(1, order, cost <= self.budget)
        target = torch.where(up, self.box[1], self.box[0]).to(x.dtype)
        return torch.where(bought & (rises | falls), target, x).reshape(given.shape)

    def explain(self, given: Tensor, output: Tensor) -> str:
        """The first reason why a single output (B = 1) is illegal."""
        if output.shape != given.shape:
            return f"shape {tuple(output.shape)} instead of {tuple(given.shape)}"
        reached = self._reached(given, output).flatten()
        if not bool(reached.all()):
            i = int((~reached).int().argmax())
            before, after = float(given.flatten()[i]), float(output.flatten()[i])
            return (
                f"feature {i} went from {before:g} to {after:g}; a change goes to an end of the "
                f"box [{self.box[0]:g}, {self.box[1]:g}], direction {self.direction}"
            )
        if (spent := int(self._spent(given, output))) > self.budget:
            return f"its changes cost {spent}, budget {self.budget}"
        return f"it was changed, but only inputs of class {self.of_class} may be"
