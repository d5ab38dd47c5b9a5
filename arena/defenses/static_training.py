"""Training against a mixture of attacks that do not change."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from arena import chance
from arena.attacks.pgd import PGD
from arena.classification import Learner
from arena.core import Labelled, Strategy, Task
from arena.defenses.inner import InformedTraining, attacked, check_attack
from arena.defenses.weights import check_weights, cumulative, drawn
from arena.fields import Positive, Share
from arena.store import Store
from arena.training.trainer import Step, Trainer

_INNER = PGD(steps=7, step=0.3, returns="last")


@dataclass(frozen=True)
class Faced:
    """What one attack makes of the whole training set.

    Attributes:
        x: The attacked inputs, [N, ...], in the order of the training data.
        name: A unique name of these inputs.
        weight: The probability of meeting this attack.
    """

    x: Tensor
    name: str
    weight: float

    def __repr__(self) -> str:
        # The store identifies trainings by their repr.
        return f"Faced({self.name}, {self.weight!r})"


@dataclass(frozen=True)
class StaticTraining(InformedTraining):
    """Best response to a mixed attacker: minimise another training's loss on what it plays.

    In every minibatch, each example meets an attack that is drawn anew by the weights. The attacks
    were made against fixed models, as in ensemble adversarial training (Tramer et al. 2018,
    1705.07204), and do not adapt to the model in training. So the model learns to be right on those
    attacks, but learns nothing about attacks on itself. `own` is the share of minibatches that meet
    such an attack instead (1706.06083).

    Attributes:
        of: The training whose loss is minimised. The loss must be that of a given batch: `of` may
            not attack the batch itself.
        attacks: The attacks, with weights that sum to 1.
        own: Probability that a minibatch is attacked through a white box of the model in training.
        inner: The attack that plays in those minibatches.

    Raises:
        ValueError: If the weights do not sum to 1 within 1e-6, or `of` attacks by itself or
            overrides `Trainer.update`.
    """

    of: Trainer = field(kw_only=True)
    attacks: tuple[Faced, ...] = field(kw_only=True)
    own: Share = 0.0
    inner: Strategy = _INNER

    def __post_init__(self) -> None:
        super().__post_init__()
        check_recipe(self.of)
        check_attack(self.inner)
        check_weights([each.weight for each in self.attacks], "StaticTraining.attacks")

    def prepared(
        self, data: Labelled, seed: int, task: Task | None, learner: Learner, store: Store | None
    ) -> Any:
        """What the training `of` prepares."""
        return self.of.prepared(data, seed, task, learner, store)

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The loss of `of` on the attacked batch."""
        return self.of.loss(module, replace(step, batch=replace(step.batch, x=self._met(step))))

    def sample(self, data: Labelled, rows: Tensor, start: Step) -> Labelled:
        """The attacked inputs: the model need not be right about the inputs as they are."""
        batch = data[rows]
        return replace(batch, x=self._met(replace(start, batch=batch, rows=rows)))

    def _met(self, step: Step) -> Tensor:
        assert step.rows is not None, "a training numbers its examples"
        key = chance.keys_of(chance.seed_of(step.seed, "met"), step.rows)
        attack = drawn(cumulative([each.weight for each in self.attacks]).to(key.device), key)
        met = torch.empty_like(step.batch.x)
        for number, each in enumerate(self.attacks):
            at = (attack == number).nonzero().squeeze(1)
            met[at] = each.x[step.rows[at]]
        return met

    def update(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """One step on the batch, attacked as the step's seed draws."""
        coin = chance.seed_of(step.seed, "own") / 2.0**63
        if coin >= self.own:
            return super().update(module, optimizer, step)
        moved = attacked(self.inner, module, step, self.faced(step))
        return self.of.update(module, optimizer, replace(step, batch=replace(step.batch, x=moved)))


def answering(
    recipe: Trainer,
    faced: tuple[Faced, ...],
    own: float,
    inner: Strategy = _INNER,
    longer: Positive = 1.0,
) -> StaticTraining:
    """A recipe's best response to attacks, with its options and `longer` times its epochs."""
    epochs = max(1, round(longer * recipe.epochs))
    return StaticTraining(
        recipe.learner,
        epochs,
        recipe.batch_size,
        recipe.lr,
        of=recipe,
        attacks=faced,
        own=own,
        inner=inner,
    )


def check_recipe(recipe: Trainer) -> None:
    """Raises ValueError unless the training's loss is that of a batch as it is given."""
    if isinstance(recipe, InformedTraining) or type(recipe).update is not Trainer.update:
        raise ValueError(
            f"{type(recipe).__name__} is no loss of a batch as it is given; use one that is, such "
            "as defender/strategy=erm, with responding.own above 0 for attacks on itself"
        )
