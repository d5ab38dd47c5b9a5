"""Cost-sensitive naive Bayes over binary features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arena.core import Cost, Labelled, Player, Strategy, Turn
from arena.fields import Positive
from arena.knowledge import View, WhiteBox
from arena.training.classifiers import ModuleClassifier


class BayesRule(nn.Module):
    """The logits [B, K] are the log of the expected gain; the argmax has the least expected cost.

    The gain of answer k for true class y is the cost of the worst answer minus the cost of k;
    `stakes` [K, K] holds its log at [y, k]. For the error rate, the logits are log P(x, y). If
    there are two classes and mistakes are the worst answers, the logits are log P(x, y) + log gain,
    which is linear in x.

    `weight` [K, n] and `bias` [K] give log P(x, y) = weight x + bias.
    """

    weight: Tensor
    bias: Tensor
    stakes: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, stakes: Tensor) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("bias", bias), ("stakes", stakes)):
            self.register_buffer(name, value.float())

    def joint(self, x: Tensor) -> Tensor:
        """Log P(x, y), [B, K]."""
        return x.flatten(1) @ self.weight.T + self.bias

    def weighed(self, joint: Tensor) -> Tensor:
        """The log of the expected gain of each answer, [B, K]."""
        return (joint[:, :, None] + self.stakes).logsumexp(1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `x` [B, ...]."""
        return self.weighed(self.joint(x))


@dataclass(frozen=True)
class NaiveBayes(Strategy):
    """The plain classifier of Dalvi et al. (KDD 2004), section 3: the least expected cost.

    Features are independent given the class. The probability that a feature is present is estimated
    with Laplace smoothing. A value between 0 and 1 counts as presence to that degree, both in
    training and in answering; this makes the model a white box with gradients, and is exact for
    binary data. The cost is the defender's own. All features are observed (in the paper, the
    defender may buy them).

    Attributes:
        alpha: Number of pseudo-examples of presence, of absence, and of each class.
    """

    alpha: Positive = 1.0

    @property
    def exposes(self) -> type[View]:
        """A white box: the model is a differentiable module."""
        return WhiteBox

    def facts(self) -> dict[str, Any]:
        """The algorithm is this strategy."""
        return {"algorithm": self}

    def check(self, player: Player) -> None:
        """Raises ValueError if the player's cost is not a function of the answers."""
        try:
            player.cost.answered(torch.tensor([0]), torch.tensor([0]))
        except NotImplementedError:
            raise ValueError(
                f"{type(self).__name__} weighs what answers cost, and cost="
                f"{type(player.cost).__name__} does not say; use cost=error_rate or cost_matrix"
            ) from None

    def fit(self, data: Labelled, cost: Cost) -> BayesRule:
        """The rule for the given data and cost.

        Raises:
            ValueError: If the data's box is not [0, 1], or all answers cost the same.
        """
        if tuple(data.box) != (0.0, 1.0):
            raise ValueError(
                f"{type(self).__name__} needs features in [0, 1], and the data's box is {data.box}"
            )
        x = data.x.flatten(1).double()
        member = nn.functional.one_hot(data.y, data.classes).double()
        size = member.sum(0)
        present = (member.T @ x + self.alpha) / (size + 2 * self.alpha)[:, None]
        absent = torch.log1p(-present)
        share = (size + self.alpha) / (len(x) + data.classes * self.alpha)
        answers = torch.arange(data.classes, device=x.device)
        costs = cost.answered(answers[None, :], answers[:, None]).double()
        gain = costs.amax(1, keepdim=True) - costs
        if not bool((gain > 0).any()):
            raise ValueError(f"{type(self).__name__}: by {cost} every answer costs the same")
        return BayesRule(present.log() - absent, absent.sum(1) + share.log(), gain.log())

    def respond(self, turn: Turn) -> ModuleClassifier:
        """The rule, estimated from the data that the defender was dealt."""
        return ModuleClassifier(self.fit(turn.data, turn.player.cost), turn.data.classes)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """The rule with these parameters."""
        rule = BayesRule(state["weight"], state["bias"], state["stakes"])
        return ModuleClassifier(rule.to(data.x.device), data.classes)
