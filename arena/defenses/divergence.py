"""How far a model's answer to one input is from its answer to another."""

from torch import Tensor
from torch.nn.functional import kl_div


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p || q) [B], of the probabilities p of `logits` [B, K] and q of `others` [B, K], in nats.

    Non-negative, zero for equal probabilities, and differentiable in both.
    """
    p, q = logits.log_softmax(1), others.log_softmax(1)
    return kl_div(q, p, reduction="none", log_target=True).sum(1)
