"""Feature squeezing: refuse inputs that the model answers differently without details [F23]."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena import chance
from arena.classification import Classifier
from arena.core import Labelled, Turn
from arena.defenses.refusals import TunedRefusal, with_refusal
from arena.defenses.transformed import check_shape
from arena.fields import Share
from arena.learners.preprocessing import answered, coins, flips_coins
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class FeatureSqueezing(TunedRefusal):
    """Xu, Evans & Qi 2018 (1704.01155), section 5: a detector around a trained model.

    An input is refused if max_j ||p(x) - p(squeezer_j(x))||_1 (equations 1 and 2, joint detection)
    exceeds a threshold, where p are the model's probabilities. The threshold is the smallest one
    that refuses at most a share `false_alarms` of the reserved examples. Other inputs are answered
    by p(x), unsqueezed, as in the paper.

    The refusal's logit is the largest log-probability, plus the distance, minus the threshold. So a
    white box can differentiate the detector, too. A squeezer whose derivative is 0, such as
    rounding, contributes nothing to it; the derivative of p(x) remains.

    Attributes:
        squeezers: Transformations whose outputs are compared with the input; each must keep its
            shape.
        false_alarms: Share of honest inputs that may be refused.
    """

    squeezers: tuple[Transformation, ...]
    false_alarms: Share = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.squeezers:
            raise ValueError("FeatureSqueezing.squeezers is empty; give at least one")

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's model with the detector.

        Raises:
            ValueError: Before anything trains, if a squeezer does not fit the inputs.
        """
        for squeezer in self.squeezers:
            check_shape(squeezer, turn.data, "FeatureSqueezing")
        return super().respond(turn)

    def around(self, model: nn.Module, data: Labelled) -> "Squeezing":
        """The model with the detector."""
        return Squeezing(model, self.squeezers, data.classes)

    def tune(self, module: nn.Module, data: Labelled, turn: Turn) -> None:
        """Sets the threshold to the quantile of the distances of `data`."""
        assert isinstance(module, Squeezing)
        parts = torch.split(data.x, turn.batch_size)
        distance = torch.cat([module.looked(x, chance.of(x))[1] for x in parts])
        refused = min(math.floor(self.false_alarms * len(data) + 1e-9), len(data) - 1)
        module.threshold.copy_(distance.sort(descending=True).values[refused])


class Squeezing(nn.Module):
    """A model that refuses where squeezing moves its probabilities by more than `threshold`."""

    threshold: Tensor

    def __init__(
        self, model: nn.Module, squeezers: tuple[Transformation, ...], classes: int
    ) -> None:
        super().__init__()
        self.model = model
        self.squeezers = squeezers
        self.classes = classes
        self.register_buffer("threshold", torch.tensor(2.0))  # the largest possible distance

    @property
    def random(self) -> bool:
        """Whether the model or a squeezer is random."""
        return flips_coins(self.model) or any(squeezer.random for squeezer in self.squeezers)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Logits [B, K + 1]: log-probabilities of `x` [B, ...], and the refusal's logit."""
        scores, distance = self.looked(x, coins(x, self.training) if key is None else key)
        top = scores[:, : self.classes].amax(1)
        return with_refusal(scores, top + (distance - self.threshold), self.classes)

    def compared(self, x: Tensor, key: Tensor) -> Tensor:
        """Log-probabilities [V, B, K] of `x` [B, ...] and of each squeezed `x`."""
        looks = [answered(self.model, x, chance.fold(key, 0))]
        for number, squeezer in enumerate(self.squeezers, 1):
            own = chance.fold(key, number)
            looks.append(answered(self.model, squeezer(x, own), chance.fold(own, 0)))
        return torch.stack(looks).log_softmax(2)

    def looked(self, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, K] of `x`, and the largest distance [B], at most 2."""
        scores, *squeezed = self.compared(x, key)
        distances = [(scores.exp() - other.exp()).abs().sum(1) for other in squeezed]
        return scores, torch.stack(distances).amax(0)
