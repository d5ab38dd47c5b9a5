"""Ensemble adversarial training: examples crafted on models that do not learn to hide."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from arena import chance
from arena.attacks.fgsm import FGSM
from arena.classification import Learner
from arena.core import Labelled, Strategy, Task
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.inner import attacked
from arena.fields import Count, Share
from arena.store import Store
from arena.training.trainer import Step

_RANDOM_START = FGSM(random_start=True)


@dataclass(frozen=True)
class EnsembleAdversarialTraining(AdversarialTraining):
    """Tramer et al. 2018 (1705.07204), section 4: decouple the attack from the model in training.

    Against a single-step attack on itself a model learns to bend its gradients rather than to be
    right. So each minibatch's attack is played against the model in training or one of several
    models trained beforehand on clean data, whichever the step's seed draws, each as likely.

    Differs from the paper in that the static models have the same architecture, and differ by their
    seeds alone, and in where R+FGSM starts: uniformly in the space, cut by the box.

    Attributes:
        static: Models trained beforehand, by ERM with the same options; none is trained twice where
            trained models are kept.
    """

    inner: Strategy = _RANDOM_START
    clean: Share = 0.5
    static: Count = 2

    def prepared(
        self, data: Labelled, seed: int, task: Task | None, learner: Learner, store: Store | None
    ) -> tuple[nn.Module, ...]:
        """The static models."""
        plain = ERM(learner, self.epochs, self.batch_size, self.lr)
        seeds = (chance.seed_of(seed, "static", number) for number in range(self.static))
        return tuple(plain.train(data, each, store=store).module for each in seeds)

    def moved(self, module: nn.Module, step: Step) -> Tensor:
        """What the inner attack plays against the model that the seed draws."""
        models: Any = (module, *step.prepared)
        drawn = models[chance.seed_of(step.seed, "source") % len(models)]
        return attacked(self.inner, drawn, step, self.faced(step))
