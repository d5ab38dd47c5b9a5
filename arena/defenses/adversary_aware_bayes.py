"""Naive Bayes that expects the optimal adversary of naive Bayes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from arena.actions.features import FeatureChanges
from arena.attacks.minimum_cost_camouflage import SLACK, affordable
from arena.core import Labelled, Task, Turn
from arena.defenses.naive_bayes import BayesRule, NaiveBayes
from arena.knowledge import View
from arena.training.classifiers import ModuleClassifier


class AwareRule(nn.Module):
    """The rule `plain`, with P(x | positive) taken after the adversary's camouflage, not before it.

    Buffers: `positive`, the class that hides; `most`, the number of changes worth their price;
    `movable` [n], the features that may change towards the other class.

    At equal prices, the cheapest changes are given by one order of the features: by how much a
    change reduces the gap. The camouflage of x is the shortest prefix, in that order, of the
    possible changes of x that closes the gap. So a set D of changed features leads from some x to
    x' if and only if three things hold in x': every feature of D, now at its hiding value, comes
    before every feature that could still change; the gap is closed; and it would be open without
    the smallest change of D. Any set of such features is possible, up to `most` of them. P(x,
    positive) is P(x', positive) times one ratio per feature of D, so the sum over all D is a sum of
    elementary symmetric polynomials. It is exact, and takes time features x most.
    """

    positive: Tensor
    most: Tensor
    movable: Tensor

    def __init__(self, plain: BayesRule, positive: Tensor, most: Tensor, movable: Tensor) -> None:
        super().__init__()
        self.plain = plain
        for name, value in (("positive", positive), ("most", most), ("movable", movable)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, K] of `x` [B, ...]; their gradient is that of the plain rule."""
        joint = self.plain.joint(x)
        hidden = nn.functional.one_hot(self.positive, joint.shape[1]) == 1
        return self.plain.weighed(joint + hidden * self.gained(x)[:, None].to(joint.dtype))

    @torch.no_grad()
    def gained(self, x: Tensor) -> Tensor:
        """Log P_A(x | positive) - log P(x | positive), float64 [B].

        It is 0 for inputs that the plain rule answers as positive, see `AdversaryAwareBayes`.
        """
        origin = self.plain(torch.zeros_like(x[:1]))[0].double()
        weight, x = self.plain.weight.double(), x.flatten(1).double()
        slope = weight[self.positive] - weight[1 - self.positive]
        gap = x @ slope + origin[self.positive] - origin[1 - self.positive]
        hides = (slope < 0).double()  # the value of each feature that supports the other class
        takes, order = slope.abs().sort(descending=True, stable=True)
        at_best = (x == hides)[:, order] & self.movable[order]
        could = (x != hides)[:, order] & self.movable[order]
        before = could.int().cumsum(1) == 0
        member = at_best & before & (gap[:, None] + takes > -SLACK) & (gap[:, None] <= -SLACK)
        ratio = (weight[self.positive] * (1 - 2 * hides))[order]
        # Column k: the log of the sum over sets of k features of the products of their ratios.
        sums = x.new_full((len(x), int(self.most) + 1), -torch.inf)
        sums[:, 0] = 0.0
        for i in member.any(0).nonzero().squeeze(1).tolist():
            longer = torch.where(member[:, i, None], sums[:, :-1] + ratio[i], -torch.inf)
            sums[:, 1:] = torch.logaddexp(sums[:, 1:], longer)
        return sums.logsumexp(1)


@dataclass(frozen=True)
class AdversaryAwareBayes(NaiveBayes):
    """Dalvi et al. (KDD 2004), section 5: the optimal reply to the optimal adversary.

    The adversary plans against plain naive Bayes (`MinimumCostCamouflage`), so the distribution of
    positive inputs on arrival is known: P_A(x' | +) is the sum of P(x | +) over all x whose
    camouflage is x', including x' itself if it needs none. The rule weighs costs by P_A.

    Deviations from the paper:
        * The sum is exact for any number of changes, as long as all changes cost the same; other
          prices are refused. The paper bounds and prunes the sum for any prices.
        * An input that plain naive Bayes answers as positive gets the same answer here. The paper
          lets it pass, because the optimal adversary never sends a positive input that it could
          hide. Then any positive input whose sender is not optimal would pass, too.

    Needs `knowledge.task` (the attacker's declared actions and cost), two classes and binary
    features.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": View}

    def respond(self, turn: Turn) -> ModuleClassifier:
        """The rule, estimated from the data that the defender was dealt.

        Raises:
            ValueError: If the data or the attacker's declared actions do not fit.
        """
        task, data = turn.see("attacker", View).task, turn.data
        assert isinstance(task, Task)
        space, name = task.actions, type(self).__name__
        if data.classes != 2 or not bool(((data.x == 0) | (data.x == 1)).all()):
            raise ValueError(
                f"{name} needs binary features and two classes; this has {data.classes} classes, "
                f"and values between {float(data.x.min()):g} and {float(data.x.max()):g}; "
                "for a table use data.binary=true"
            )
        if not isinstance(space, FeatureChanges) or space.of_class not in (0, 1):
            raise ValueError(
                f"{name} answers an attacker who changes features of one class, not {space}; use "
                "attacker/actions=feature_changes, with of_class 0 or 1"
            )
        plain = self.fit(data, turn.player.cost)
        prices = space.price_list(plain.weight.shape[1])
        if bool((prices != prices[0]).any()):
            raise ValueError(f"{name} is exact where all changes cost the same, not at {space}")
        positive = torch.tensor([space.of_class], device=data.x.device)
        worth = affordable(space, task.cost, positive, int(prices.sum()))
        slope = plain.weight[positive] - plain.weight[1 - positive]
        hides = (slope < 0).to(data.x.dtype)
        movable = torch.where(hides == 1, space.may_rise(1 - hides), space.may_fall(1 - hides))
        most = worth // int(prices[0])
        rule = AwareRule(plain, positive[0], most[0], (movable & (slope != 0))[0])
        return ModuleClassifier(rule, data.classes)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """The rule with these parameters."""
        plain = BayesRule(*(state[f"plain.{name}"] for name in ("weight", "bias", "stakes")))
        rule = AwareRule(plain, state["positive"], state["most"], state["movable"])
        return ModuleClassifier(rule.to(data.x.device), data.classes)
