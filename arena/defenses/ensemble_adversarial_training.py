"""Ensemble adversarial training: examples crafted on other models, which do not adapt."""

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

    Trained against a single-step attack on itself, a model learns to mask its gradients rather than
    to be right. So each minibatch is attacked through one model, drawn by the step's seed with
    equal probability: the model in training, or one of several static models, trained beforehand on
    clean data.

    Deviations from the paper: the static models have the same architecture and differ only in their
    seeds; R+FGSM starts uniformly in the space, inside the box.

    Attributes:
        static: Number of static models. ERM trains them with the same options; with a store, each
            is trained only once.
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
        """What the inner attack plays, [B, ...], against the model that the seed draws."""
        models: Any = (module, *step.prepared)
        drawn = models[chance.seed_of(step.seed, "source") % len(models)]
        return attacked(self.inner, drawn, step, self.faced(step))
