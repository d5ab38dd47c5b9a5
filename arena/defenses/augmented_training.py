"""Training on transformed inputs; the model itself does not contain the transformation."""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.training.trainer import Step, Trainer
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class AugmentedTraining(Trainer):
    """Mean cross-entropy on inputs that are transformed at random, anew in every step.

    With Gaussian noise, this is the training of Cohen et al. 2019 (1902.02918), section 3.3, which
    `RandomizedSmoothing` needs for its inner model. The learner `Preprocessing` would keep the
    noise in the model, and smoothing would add noise a second time.

    Attributes:
        augmentation: Transformation of every training input; it must keep the input's shape.
    """

    augmentation: Transformation = field(default=GaussianNoise(0.25))

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the transformed batch."""
        batch = step.batch
        key = chance.keys(step.seed, len(batch), batch.x.device)
        return cross_entropy(module(self.augmentation(batch.x, key)), batch.y)
