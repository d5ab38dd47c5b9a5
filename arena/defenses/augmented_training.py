"""Training on transformed inputs, with nothing of the transformation left in the model."""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.training.trainer import Step, Trainer
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class AugmentedTraining(Trainer):
    """Mean cross-entropy on inputs transformed at random, afresh every time they come.

    With Gaussian noise, the training of Cohen et al. 2019 (1902.02918), section 3.3: what
    `RandomizedSmoothing` wants within it. The learner `Preprocessing` would leave the noise in the
    model, to which smoothing adds its own; this does not.

    Attributes:
        augmentation: What is done to every training input; it must keep the input's shape.
    """

    augmentation: Transformation = field(default=GaussianNoise(0.25))

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the transformed batch."""
        batch = step.batch
        key = chance.keys(step.seed, len(batch), batch.x.device)
        return cross_entropy(module(self.augmentation(batch.x, key)), batch.y)
