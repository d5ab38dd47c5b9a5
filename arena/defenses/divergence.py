"""The divergence between a model's answers to two inputs."""

from torch import Tensor
from torch.nn.functional import kl_div


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p || q) [B] in nats, with probabilities p of `logits` [B, K] and q of `others` [B, K].

    It is non-negative, zero for equal probabilities, and differentiable in both arguments.
    """
    p, q = logits.log_softmax(1), others.log_softmax(1)
    return kl_div(q, p, reduction="none", log_target=True).sum(1)
