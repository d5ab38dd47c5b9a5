"""Virtual adversarial training: penalise the largest change of the answers near each input."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.actions.lp import L2
from arena.classification import Learner, Perturbations
from arena.core import Labelled, Player, Task, Turn
from arena.defenses.divergence import divergence
from arena.defenses.inner import declared, frozen, task_of
from arena.fields import Count, NonNegative, Positive, Share
from arena.knowledge import View
from arena.learners.preprocessing import answered
from arena.store import Store
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class VirtualAdversarialTraining(Trainer):
    """Miyato et al. 2016 (1507.00677) and 2018 (1704.03976, equations 5-8, Algorithm 1).

    The loss is the cross-entropy of labelled examples, plus a weighted penalty on all examples:
    KL(p(x) || p(x + r)), with p(x) held fixed, for the r of size eps that raises it most (local
    distributional smoothness). The divergence has no slope at r = 0. So r is the dominant direction
    of its Hessian, found by power iteration: starting from a random d, d becomes the steepest
    direction of the gradient at xi d.

    The penalty needs no labels, which allows semi-supervised learning [F33]: with `labelled` below
    1, the seed draws the examples whose labels are used, and each step draws as many labelled
    examples as it has inputs, with replacement.

    Size and steepest direction are those of the paper (L2 without a box) or those of the attacker's
    declared space, in which case x + r is legal. Deviation: the search for r has the module in
    evaluation mode (paper: in training mode). A random module gets the same random key for x and
    for x + r.

    Attributes:
        eps: Size of r in L2; None: r is from the attacker's declared space.
        xi: Size of the r at which gradients are taken, in the same geometry. If it is too small,
            rounding dominates the difference between the answers at x and at x + xi d.
        iterations: Iterations of the power method; each takes one gradient.
        weight: Weight of the penalty (alpha in the paper).
        entropy: Weight of the mean entropy of the answers (1704.03976, section 4.2).
        labelled: Share of the data whose labels are used.

    Raises:
        ValueError: If `labelled` is 0.
    """

    eps: Positive | None = 2.0
    xi: Positive = 0.1
    iterations: Count = 1
    weight: NonNegative = 1.0
    entropy: NonNegative = 0.0
    labelled: Share = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labelled == 0.0:
            raise ValueError("labelled=0 leaves no label to learn from; raise it")

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """The attacker's declarations, if r is from its declared space."""
        return {"attacker": View} if self.eps is None else {}

    def check(self, player: Player) -> None:
        """Raises ValueError if the attacker's space is needed and knowledge does not grant it."""
        if self.eps is None and not player.knowledge.task:
            raise ValueError(
                "eps=null takes r from the attacker's declared space, which knowledge.task=false "
                "hides; grant it, or give eps"
            )

    def task(self, turn: Turn) -> Task | None:
        """The attacker's declarations, if r is from its declared space."""
        return task_of(turn) if self.eps is None else None

    def prepared(
        self, data: Labelled, seed: int, task: Task | None, learner: Learner, store: Store | None
    ) -> Labelled | None:
        """The examples whose labels are used; None for all."""
        if self.labelled == 1.0:
            return None
        shuffle = torch.Generator().manual_seed(chance.seed_of(seed, "labelled"))
        used = max(round(self.labelled * len(data)), 1)
        return data[torch.randperm(len(data), generator=shuffle)[:used].to(data.x.device)]

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of labelled examples, plus penalty and entropy of the batch."""
        x, known = step.batch.x, step.batch
        key = chance.keys(step.seed, len(x), x.device)
        if step.prepared is not None:
            drawn = chance.integers(chance.fold(key, 0), len(step.prepared))
            known = step.prepared[drawn]
        if self.weight == 0.0 and self.entropy == 0.0:
            return cross_entropy(module(known.x), known.y)
        inputs = [x, self.moved(module, step)] + ([] if known is step.batch else [known.x])
        logits = answered(module, torch.cat(inputs), key.repeat(len(inputs))).chunk(len(inputs))
        clean = logits[0]
        error = cross_entropy(clean if known is step.batch else logits[2], known.y)
        loss = error + self.weight * divergence(clean.detach(), logits[1]).mean()
        if self.entropy > 0.0:
            loss = loss - self.entropy * (clean.softmax(1) * clean.log_softmax(1)).sum(1).mean()
        return loss

    def moved(self, module: nn.Module, step: Step) -> Tensor:
        """The virtual adversarial examples x + r of the batch, [B, ...]."""
        x, space = step.batch.x, self._space(step)
        key = chance.keys(step.seed, len(x), x.device)
        direction = space.steepest(chance.normal(chance.fold(key, 1), x.shape[1:]))
        with frozen(module):
            clean = answered(module, x, key)
            for _ in range(self.iterations):
                r = (self.xi * direction).requires_grad_()
                rise = divergence(clean, answered(module, x + r, key)).sum()
                direction = space.steepest(torch.autograd.grad(rise, r)[0])
        moved = torch.add(x, direction, alpha=space.eps)
        return moved if self.eps is not None else space.project(x, moved)

    def _space(self, step: Step) -> Perturbations:
        if self.eps is not None:
            return L2(self.eps)
        space = declared(self, step).actions
        if not isinstance(space, Perturbations):
            raise ValueError(
                f"eps=null takes r from the attacker's space, and {type(space).__name__} has no "
                "directions; give eps, or use attacker/actions=linf, l2, l1 or l0"
            )
        return space
