"""TRADES: trade clean accuracy for answers that an attacker can change less."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.defenses.divergence import divergence
from arena.defenses.inner import InformedTraining, ascended, frozen
from arena.fields import Count, NonNegative, Positive
from arena.training.trainer import Step


@dataclass(frozen=True)
class TRADES(InformedTraining):
    """Zhang et al. 2019 (1901.08573), equation 5: cross-entropy + beta * max KL(p(x) || p(x')).

    The first term gives clean accuracy and needs labels. The second term pushes the decision
    boundary away from the data and needs no labels. The maximum over x' is searched as in the
    paper's Algorithm 1 and its code: it starts from a little noise, since the divergence has no
    slope at x itself, and takes projected steps, with the module in evaluation mode. Gradients
    reach the parameters through both answers, as in the paper's code.

    Deviation from the paper: the space and the steps are those of the attacker's declared geometry;
    its cost plays no part.

    Attributes:
        beta: Weight of the divergence (1 / lambda in the paper); a larger weight gives a more
            robust model.
        steps: Number of inner gradients.
        step: Inner step size, as a share of the space's eps.
        noise: Standard deviation of the initial noise of the ascent, in the units of the input.
    """

    beta: NonNegative = 6.0
    steps: Count = 10
    step: Positive = 0.25
    noise: Positive = 0.001

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch, plus the weighted divergence to the worst answers near it."""
        batch = step.batch
        moved = self.moved(module, step)
        logits = module(batch.x)
        spread = divergence(logits, module(moved)).mean()
        return cross_entropy(logits, batch.y) + self.beta * spread

    def moved(self, module: nn.Module, step: Step) -> Tensor:
        """Legal inputs [B, ...] whose answers diverge most from those to the batch."""
        x, space = step.batch.x, self.perturbations(step)
        keys = chance.keys(step.seed, len(x), x.device)
        start = space.project(x, x + self.noise * chance.normal(keys, x.shape[1:]))
        with frozen(module):
            given = module(x)
            return ascended(
                lambda at: divergence(given, module(at)), x, start, space, self.steps, self.step
            )
