"""Refusing to classify inputs of low confidence [F8]."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena.classification import Answers, Outcome
from arena.core import Cost, Labelled, Turn
from arena.defenses.refusals import TunedRefusal, with_refusal
from arena.knowledge import REFUSED
from arena.learners.preprocessing import answered, coins, flips_coins
from arena.training.classifiers import LOG_ZERO, committed

_NOTHING, _EVERYTHING = LOG_ZERO, 1.0
"""Thresholds on a log-probability that refuse nothing and everything."""


@dataclass(frozen=True)
class Refusing(TunedRefusal):
    """Refuses if the largest class probability is below a threshold (Chow's rule, 1970).

    The threshold has the least total cost on the reserved examples, by the player's declared cost
    of answers to honest inputs: the cost of refusals (`on_clean` of the cost `Refusal`) plus the
    cost of mistakes. Ties are broken by the fewest refusals. Under a cost that a refusal cannot
    lower, such as the error rate, nothing is refused. The threshold does not depend on any attack;
    the game shows what refusing does against one.

    The refusal's logit is the log of the threshold, next to the log-probabilities of the classes.
    It is a constant, so a white box sees how far each answer is from a refusal.
    """

    def around(self, model: nn.Module, data: Labelled) -> "Thresholded":
        """The model with a column for refusals."""
        return Thresholded(model, data.classes)

    def tune(self, module: nn.Module, data: Labelled, turn: Turn) -> None:
        """Sets the threshold to the one of least cost on `data`."""
        assert isinstance(module, Thresholded)
        model = committed(module, data.classes)  # nothing is refused yet
        logits = torch.cat([model.logits(part) for part in torch.split(data.x, turn.batch_size)])
        module.threshold.copy_(cheapest(logits, data, turn.player.cost))


class Thresholded(nn.Module):
    """A model that refuses if no class reaches a log-probability of `threshold`."""

    threshold: Tensor

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.register_buffer("threshold", torch.tensor(_NOTHING))

    @property
    def random(self) -> bool:
        """Whether the model is random."""
        return flips_coins(self.model)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Logits [B, K + 1]: log-probabilities, and the threshold or the model's larger refusal."""
        if key is None:
            key = coins(x, self.training)
        scores = answered(self.model, x, key).log_softmax(1)
        return with_refusal(scores, self.threshold.expand(len(x)), self.classes)


def cheapest(logits: Tensor, data: Labelled, cost: Cost) -> Tensor:
    """The log-threshold of least total cost on honest inputs with logits [B, K + 1].

    All thresholds between two neighboring confidences refuse the same inputs, so there are B + 1
    choices. The threshold returned is halfway between two confidences.
    """
    scores, own = logits[:, : data.classes], logits[:, data.classes]
    confidence, label = scores.max(1)
    label = torch.where(own > confidence, REFUSED, label)  # the model itself refuses
    confidence, order = confidence.double().sort()
    answering, refusing = (
        _honest(cost, answers[order], data.y[order]).double()
        for answers in (label, torch.full_like(label, REFUSED))
    )
    # Entry k: the cost of refusing the k least confident examples, relative to none.
    total = torch.zeros(len(label) + 1, dtype=torch.float64, device=label.device)
    total[1:] = (refusing - answering).cumsum(0)
    # Examples of equal confidence are refused together.
    total[1:-1][confidence[1:] == confidence[:-1]] = torch.inf
    halfway = (confidence[1:] + confidence[:-1]) / 2
    ends = torch.tensor([_NOTHING, _EVERYTHING], dtype=torch.float64, device=label.device)
    thresholds = torch.cat([ends[:1], halfway, ends[1:]])
    return thresholds[(total <= total.min() + 1e-9).int().argmax()]


def _honest(cost: Cost, labels: Tensor, y: Tensor) -> Tensor:
    """The declared cost [B] of answers to inputs that no attacker changed."""
    none, answers = torch.zeros_like(labels), Answers(labels)
    return cost(Outcome(y, answers, answers, none.bool(), none, none))
