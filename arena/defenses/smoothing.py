"""Randomized smoothing: the majority answer to noisy copies of an input, with a certificate."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.checkpoint import checkpoint

from arena import chance
from arena.actions.lp import L1, L2, Linf, Lp
from arena.core import ActionSpace, Labelled, Player
from arena.defenses.refusals import check_refusal, with_refusal
from arena.defenses.wrapped import Wrapper
from arena.fields import Count, Positive, Range, Whole
from arena.learners.preprocessing import Preprocessing, answered, coins
from arena.training.classifiers import RandomClassifier
from arena.transformations.gaussian_noise import GaussianNoise

_ROUNDING = 2.0**-22
"""The share by which `Lp.contains`, which compares sizes in float32, may exceed a radius."""


@dataclass(frozen=True)
class RandomizedSmoothing(Wrapper):
    """Cohen, Rosenfeld & Kolter 2019 (1902.02918): PREDICT answers, CERTIFY proves.

    The answer is the class that the inner model gives to most of `samples` noisy copies of the
    input. Every query draws new noise. With `refuses`, the answer is a refusal unless a two-sided
    binomial test of the two most frequent classes rejects, at level `alpha`, that they are equally
    likely (PREDICT).

    The inner model should be trained on noisy inputs (section 3.3) by `AugmentedTraining`, which
    keeps no noise in the model. With the learner `Preprocessing`, noise would be added twice.

    A class with v of n votes has the logit log(v + s / 2), where s is the mean of its probabilities
    over the same copies. So the votes decide (s breaks ties), and the derivative is that of the
    mean probabilities, as in equation 6 of Salman et al. 2019 (1906.04584). A white box can search
    it, and an average over passes (EOT) averages over more copies. The copies go through the model
    in parts; the backward pass computes each part again, so memory does not grow with `samples`.

    Attributes:
        std: Standard deviation of the noise, in the units of the input. Noisy copies are not
            clipped to the box.
        samples: Noisy copies per answer.
        refuses: Whether to refuse if the votes are too close; otherwise the majority answers.
        alpha: Level of the test, and the largest probability, per example, of a wrong certificate.
        selection: Copies by which CERTIFY guesses the class (n_0 in the paper).
        estimation: Copies by which it bounds the class's probability (n in the paper, 100,000
            there); 0: nothing is certified.
    """

    std: Positive = 0.25
    samples: Count = 100
    refuses: bool = False
    alpha: Annotated[float, Range(0, 1, above=True)] = 0.001
    selection: Count = 100
    estimation: Whole = 1000

    def check(self, player: Player) -> None:
        """Raises ValueError if it may not refuse, would add noise twice, or `of` does not fit."""
        super().check(player)
        if self.refuses:
            check_refusal(self, player)
        learner = self.of.facts().get("architecture")
        if isinstance(learner, Preprocessing) and isinstance(learner.preprocess, GaussianNoise):
            raise ValueError(
                "RandomizedSmoothing adds noise to the inputs of a model that adds its own, of the "
                "learner Preprocessing(GaussianNoise); train that architecture without it, by "
                "AugmentedTraining(augmentation=GaussianNoise)"
            )

    def around(self, model: nn.Module, data: Labelled) -> "Smoothed":
        """The vote."""
        return Smoothed(model, self, data.classes)

    def commit(self, module: nn.Module, data: Labelled) -> "SmoothedClassifier":
        """The vote, with certificates."""
        assert isinstance(module, Smoothed)
        return SmoothedClassifier(module, data.classes)

    @property
    def enough(self) -> int:
        """The fewest of `samples` votes that decide an answer, however the others are spread."""
        return separating(self.samples, self.alpha) if self.refuses else self.samples // 2 + 1


class Smoothed(nn.Module):
    """The vote of a model over noisy copies of its input."""

    random = True
    separating: Tensor

    def __init__(self, model: nn.Module, how: RandomizedSmoothing, classes: int) -> None:
        super().__init__()
        self.model = model
        self.how = how
        self.classes = classes
        if how.refuses:
            table = [separating(votes, how.alpha) for votes in range(how.samples + 1)]
            # Not part of the state: a function of what is declared.
            self.register_buffer("separating", torch.tensor(table), persistent=False)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Logits [B, K] of `x` [B, ...]: the log of the vote shares; [B, K + 1] with refusals."""
        key = coins(x, self.training) if key is None else key
        votes, mean = self.polled(x, chance.fold(key, 0), self.how.samples)
        logits = torch.logaddexp(votes.log(), mean - math.log(2.0))
        if self.how.refuses:
            # Minus a quarter of a vote: the half vote of s must not make up for a missing one.
            close = self.separating[votes.topk(2).values.sum(1).long()] - 0.25
            logits = with_refusal(logits, close.log(), self.classes)
        return logits - math.log(self.how.samples)

    def polled(self, x: Tensor, key: Tensor, copies: int) -> tuple[Tensor, Tensor]:
        """Votes [B, K] over noisy copies of `x`, and the log of their mean probabilities [B, K]."""
        numbers = torch.arange(copies, device=x.device)
        parts = torch.split(numbers, max(together(x.device) // max(len(x), 1), 1))
        polls = [
            checkpoint(self._poll, x, key, part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        votes, sums = (torch.stack(each) for each in zip(*polls, strict=True))
        return votes.sum(0), sums.logsumexp(0) - math.log(copies)

    def _poll(self, x: Tensor, key: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The votes [B, K] of the copies `numbers`, and the log of their summed probabilities."""
        n = len(numbers)
        keys = chance.fold(key.repeat(n), numbers.repeat_interleave(len(x)))
        copies = x.repeat(n, *(1,) * (x.ndim - 1))
        noisy = GaussianNoise(self.how.std)(copies, chance.fold(keys, 0))
        scores = answered(self.model, noisy, chance.fold(keys, 1)).log_softmax(1)
        votes = one_hot(scores.argmax(1), scores.shape[1]) * scores.isfinite().all(1)[:, None]
        by_copy = scores.view(n, len(x), -1)
        return votes.view(by_copy.shape).sum(0).to(x.dtype), by_copy.logsumexp(0)


class SmoothedClassifier(RandomClassifier):
    """A committed vote with certificates."""

    def __init__(self, module: Smoothed, classes: int) -> None:
        super().__init__(module, classes)
        self._smoothed = module

    def certified(self, given: Labelled, actions: ActionSpace) -> Tensor | None:
        """Whether [B] the vote is `given.y` at any legal output; None where `estimation` is 0.

        It holds with probability 1 - alpha for each example, over the noise of the certificate and
        of the vote, for an output that was chosen without knowledge of the vote's noise. So the
        share of certified examples is itself an estimate, and an attacker who tries outputs until
        the noise is in its favor is not covered.

        Deviation from CERTIFY, which is about a classifier that uses infinitely many copies: here
        `samples` copies must decide right as well, so the class must keep a probability above 1/2
        (see `radii`). A ball of L-inf counts as the L2 ball around it (radius eps sqrt(d) for d
        input values), and so does a ball of L1 (radius eps).

        Raises:
            ValueError: If the actions are not such a ball.
        """
        if self._smoothed.how.estimation == 0:
            return None
        eps = euclidean(actions, math.prod(given.shape))
        label, radius = self.radii(given.x)
        return (label == given.y) & (radius >= eps)

    @torch.no_grad()
    def radii(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A class [B] for each input, and the L2 radius [B], float64, within which it is answered.

        CERTIFY: the class is guessed from `selection` copies. From `estimation` other copies, its
        probability is bounded from below by p (Clopper & Pearson, level alpha / 2). At distance r
        the probability is at least Phi(Phi^-1(p) - r / std) (Theorem 1), so the radius is
        std (Phi^-1(p) - Phi^-1(q)). Here q is the least probability with which `samples` copies
        decide for the class with probability 1 - alpha / 2; in the paper, q = 1/2. A radius below 0
        proves nothing.
        """
        how, module = self._smoothed.how, self._smoothed
        chosen, agreed = [], []
        for part in torch.split(x, together(x.device)):
            own = chance.of(part)
            guess = module.polled(part, chance.fold(own, 1), how.selection)[0].argmax(1)
            votes = module.polled(part, chance.fold(own, 2), how.estimation)[0]
            chosen.append(guess)
            agreed.append(votes.gather(1, guess[:, None]).squeeze(1))
        label, votes = torch.cat(chosen), torch.cat(agreed)
        low = least(votes.long().cpu(), how.estimation, how.alpha / 2)
        decisive = at_least(how.enough, how.samples, how.alpha / 2)
        room = stats.norm.ppf(low.numpy()) - stats.norm.ppf(decisive)
        return label, how.std * torch.as_tensor(room).nan_to_num(-math.inf).to(x.device)


def together(device: torch.device) -> int:
    """Rows per pass: with fewer, overhead dominates (measured on a CPU); more take memory."""
    return 1024 if device.type == "cpu" else 8192


def least(successes: Tensor, n: int, alpha: float) -> Tensor:
    """The lower end [B], float64, of a one-sided interval for a probability (Clopper & Pearson).

    There were `successes` [B] in `n` tries. The true probability is below the lower end with
    probability at most alpha.
    """
    low = stats.beta.ppf(alpha, successes.numpy(), n - successes.numpy() + 1)
    return torch.where(successes > 0, torch.as_tensor(low), 0.0)


def at_least(k: int, n: int, alpha: float) -> float:
    """The chance at which fewer than `k` of `n` tries succeed with probability alpha; 1: k > n."""
    return float(stats.beta.ppf(1 - alpha, k, n - k + 1)) if k <= n else 1.0


def separating(votes: int, alpha: float) -> int:
    """The fewest of `votes` for one of two classes that reject a fair coin at level `alpha`.

    This is the least k with 2 P(Bin(votes, 1/2) >= k) <= alpha (two-sided test), or votes + 1 if
    there is none.
    """
    counts = range(votes // 2 + 1, votes + 1)
    return next((k for k in counts if 2 * stats.binom.sf(k - 1, votes, 0.5) <= alpha), votes + 1)


def euclidean(actions: ActionSpace, values: int) -> float:
    """The radius of an L2 ball that contains every legal output, for inputs of `values` entries.

    Raises:
        ValueError: If the actions are not a ball of L2, L-inf or L1.
    """
    if not isinstance(actions, L2 | Linf | L1):
        raise ValueError(
            f"RandomizedSmoothing certifies balls of L2, Linf and L1, not {type(actions).__name__};"
            " use such actions for the attacker, or estimation=0 to play without certificates"
        )
    eps = actions.eps * (1 + Lp.tolerance + _ROUNDING)
    return eps * math.sqrt(values) if isinstance(actions, Linf) else eps
