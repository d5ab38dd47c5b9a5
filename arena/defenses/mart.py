"""MART: the most weight on examples that are misclassified even without an attack."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.core import Labelled
from arena.defenses.divergence import divergence
from arena.defenses.inner import Attacked
from arena.fields import NonNegative


@dataclass(frozen=True)
class MART(Attacked):
    """Misclassification-aware adversarial training: Wang et al., ICLR 2020 (OpenReview rklOg6EFwS).

    Minimises the mean of BCE(p(x'), y) + weight * KL(p(x) || p(x')) * (1 - p_y(x)). The boosted
    cross-entropy BCE is -log p_y(x') - log(1 - max_{k != y} p_k(x')), which adds a margin to the
    likelihood.

    Deviation from the paper's code: both logs are computed from the logits. The code adds a small
    constant to the probabilities.

    Attributes:
        weight: Weight of the divergence (lambda in the paper).
    """

    weight: NonNegative = 5.0

    def against(self, module: nn.Module, batch: Labelled, moved: Tensor) -> Tensor:
        """The boosted cross-entropy, plus the divergence weighted by the clean answer's doubt."""
        logits, attacked = module(batch.x), module(moved)
        doubt = -(-nll(logits, batch.y)).expm1()
        spread = doubt * divergence(logits, attacked)
        return (boosted(attacked, batch.y) + self.weight * spread).mean()


def nll(logits: Tensor, y: Tensor) -> Tensor:
    """The negative log-likelihood -log p_y [B] of logits [B, K]."""
    return cross_entropy(logits, y, reduction="none")


def boosted(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y - log(1 - p_k) [B] of logits [B, K], for the most likely wrong class k."""
    wrong = logits.scatter(1, y[:, None], -float("inf")).argmax(1, keepdim=True)
    rest = logits.scatter(1, wrong, -float("inf")).logsumexp(1)
    return nll(logits, y) + logits.logsumexp(1) - rest
