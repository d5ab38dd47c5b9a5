"""Losses that a descent may follow: margins between the answers that win and those that lose.

An answer wins if, given the truth, no other answer costs the attacker less; it loses if it costs
more. For an untargeted attacker every other class wins; for a targeted one the target alone does. A
loss is differentiable and low where the attacker is well off. It has the sign of a margin: it is
negative once the model gives a winning answer.
"""

import torch
from torch import Tensor

from arena.core import Cost
from arena.knowledge import INVALID, REFUSED


def prices(cost: Cost, y: Tensor, width: int, classes: int) -> Tensor:
    """The cost of each answer, [B, width]; a column beyond `classes` is the refusal's."""
    answers = torch.arange(width, device=y.device)
    answers[classes:] = REFUSED
    return cost.answered(answers[None, :], y[:, None])


def barren(cost: Cost, labels: Tensor, y: Tensor) -> Tensor:
    """Where [B] there is no answer, and that costs no less than the right one: nothing is won."""
    return (labels == INVALID) & (cost.answered(labels, y) >= cost.answered(y, y))


def winning(prices: Tensor) -> Tensor:
    """Which answers win, bool [B, width]; none where all cost the same."""
    least, most = prices.amin(1, keepdim=True), prices.amax(1, keepdim=True)
    return (prices == least) & (least < most)


def margin(logits: Tensor, wins: Tensor, target: Tensor | None = None) -> Tensor:
    """The largest losing logit less the largest winning one, or `target`'s, [B]; 0 if none wins.

    The objective f_6 of Carlini & Wagner 2017 (1608.04644) without its cut at zero.
    """
    lost = logits.masked_fill(wins, -torch.inf).amax(1)
    if target is None:
        won = logits.masked_fill(~wins, -torch.inf).amax(1)
    else:
        won = logits.gather(1, target[:, None]).squeeze(1)
    return torch.where(wins.any(1), lost - won, 0.0)


def dlr(logits: Tensor, wins: Tensor, target: Tensor | None = None) -> Tensor:
    """The margin, divided by a difference of sorted logits so that their scale has no effect, [B].

    Croce & Hein 2020 (2003.01690), equation 6, (z_y - max z_i) / (z_(1) - z_(3)); with a target
    equation 7, (z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2). With three answers, z_(4) is z_(3).
    With two answers any such ratio is constant, and the margin itself is returned.
    """
    if logits.shape[1] < 3:
        return margin(logits, wins, target)
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    third = top[:, 2] if target is None else (top[:, 2] + top[:, -1]) / 2
    return margin(logits, wins, target) / (top[:, 0] - third).clamp(min=1e-12)


def targets(logits: Tensor, wins: Tensor) -> Tensor:
    """The answers in the order to try them, [B, K]: those that win first, the likeliest first."""
    return logits.masked_fill(~wins, -torch.inf).argsort(dim=1, descending=True, stable=True)
