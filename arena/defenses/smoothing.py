"""Randomized smoothing: the majority of a model's answers to noisy copies, with a certificate."""

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
"""Of a radius: what `Lp.contains`, which compares sizes in float32, lets through beyond it."""


@dataclass(frozen=True)
class RandomizedSmoothing(Wrapper):
    """Cohen, Rosenfeld & Kolter 2019 (1902.02918): PREDICT answers, CERTIFY proves.

    An answer is the class that most of `samples` noisy copies of the input are given, by coins that
    are fresh for every query. With `refuses` it is a refusal unless a two-sided binomial test of
    the two most frequent answers rejects at level `alpha` that they are equally likely (PREDICT).

    The model within should be trained on noisy inputs (section 3.3): by `AugmentedTraining`, which
    leaves no noise in it. Behind the learner `Preprocessing` the noise would be added twice.

    A class with v of n votes has the logit log(v + s / 2), for the mean s of its probabilities over
    the same copies. The answer is that of the votes (s breaks ties), and the derivative that of the
    mean probabilities, as Salman et al. 2019 (1906.04584), equation 6, attack and train: a white
    box can search it, and averages over passes (EOT) average over more copies. Copies go through
    the model in parts, forward and backward (where each part is computed again), so that memory
    does not grow with `samples`.

    Attributes:
        std: Standard deviation of the noise, in the units of the input; it is not cut to the box.
        samples: Noisy copies an answer takes.
        refuses: Refuse where the votes are too close; else the majority answers.
        alpha: Level of the test, and the most likely that a certificate is wrong, an example.
        selection: Copies by which CERTIFY guesses the class (n_0 of the paper).
        estimation: Copies by which it bounds the class's probability (n of the paper; 100,000
            there); 0: nothing is certified.
    """

    std: Positive = 0.25
    samples: Count = 100
    refuses: bool = False
    alpha: Annotated[float, Range(0, 1, above=True)] = 0.001
    selection: Count = 100
    estimation: Whole = 1000

    def check(self, player: Player) -> None:
        """Raises ValueError if it may not refuse, adds noise twice, or `of` does not fit."""
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
        """The least votes of all `samples` that decide an answer, whoever has the others."""
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
        """Logits [B, K]: the log of the votes' shares; a column more if anything refuses."""
        key = coins(x, self.training) if key is None else key
        votes, mean = self.polled(x, chance.fold(key, 0), self.how.samples)
        logits = torch.logaddexp(votes.log(), mean - math.log(2.0))
        if self.how.refuses:
            # Less a quarter of a vote, as half a vote must not make up for a missing one.
            close = self.separating[votes.topk(2).values.sum(1).long()] - 0.25
            logits = with_refusal(logits, close.log(), self.classes)
        return logits - math.log(self.how.samples)

    def polled(self, x: Tensor, key: Tensor, copies: int) -> tuple[Tensor, Tensor]:
        """Votes [B, K] over noisy copies, and the log of the mean probabilities [B, K]."""
        numbers = torch.arange(copies, device=x.device)
        parts = torch.split(numbers, max(together(x.device) // max(len(x), 1), 1))
        polls = [
            checkpoint(self._poll, x, key, part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        votes, sums = (torch.stack(each) for each in zip(*polls, strict=True))
        return votes.sum(0), sums.logsumexp(0) - math.log(copies)

    def _poll(self, x: Tensor, key: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The votes of the copies `numbers`, and the log of the sum of their probabilities."""
        n = len(numbers)
        keys = chance.fold(key.repeat(n), numbers.repeat_interleave(len(x)))
        copies = x.repeat(n, *(1,) * (x.ndim - 1))
        noisy = GaussianNoise(self.how.std)(copies, chance.fold(keys, 0))
        scores = answered(self.model, noisy, chance.fold(keys, 1)).log_softmax(1)
        votes = one_hot(scores.argmax(1), scores.shape[1]) * scores.isfinite().all(1)[:, None]
        by_copy = scores.view(n, len(x), -1)
        return votes.view(by_copy.shape).sum(0).to(x.dtype), by_copy.logsumexp(0)


class SmoothedClassifier(RandomClassifier):
    """A committed vote that proves where it stands."""

    def __init__(self, module: Smoothed, classes: int) -> None:
        super().__init__(module, classes)
        self._smoothed = module

    def certified(self, given: Labelled, actions: ActionSpace) -> Tensor | None:
        """Whether [B] the vote is `given.y` at any legal output; None where `estimation` is 0.

        It holds with probability 1 - alpha for each example, over the noise of the certificate and
        of the vote, for an output that was chosen without sight of the latter. So a share of
        certified examples is itself an estimate, and an attacker who tries outputs until the coins
        fall badly is not covered.

        Differs from CERTIFY, which is about the classifier that takes infinitely many copies: so
        that this one's `samples` decide right as well, the class must keep a probability above
        1/2, see `radii`. A ball of L-inf counts as the ball of L2 around it (eps sqrt(d) for d
        input values), one of L1 likewise (eps).

        Raises:
            ValueError: If the actions are no such ball.
        """
        if self._smoothed.how.estimation == 0:
            return None
        eps = euclidean(actions, math.prod(given.shape))
        label, radius = self.radii(given.x)
        return (label == given.y) & (radius >= eps)

    @torch.no_grad()
    def radii(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A class [B] for each input, and the L2 radius [B], float64, within which it is answered.

        CERTIFY: the class is guessed from `selection` copies, and its probability bounded below by
        that of `estimation` others, by Clopper & Pearson at level alpha / 2. At a distance r it is
        at least Phi(Phi^-1(p) - r / std) (Theorem 1), so the radius is
        std (Phi^-1(p) - Phi^-1(q)), where q is the probability from which on `samples` copies
        decide for a class with probability 1 - alpha / 2. In the paper, q = 1/2. A radius below 0
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
    """Rows a pass: fewer do not pay for its overhead (measured on a CPU), more take memory."""
    return 1024 if device.type == "cpu" else 8192


def least(successes: Tensor, n: int, alpha: float) -> Tensor:
    """The lower end [B], float64, of a one-sided interval for a probability (Clopper & Pearson).

    `successes` [B] of `n` tries; the probability lies below it with probability at most alpha.
    """
    low = stats.beta.ppf(alpha, successes.numpy(), n - successes.numpy() + 1)
    return torch.where(successes > 0, torch.as_tensor(low), 0.0)


def at_least(k: int, n: int, alpha: float) -> float:
    """The probability at which `n` tries fall short of `k` successes with probability alpha.

    1 if more than n are wanted.
    """
    return float(stats.beta.ppf(1 - alpha, k, n - k + 1)) if k <= n else 1.0


def separating(votes: int, alpha: float) -> int:
    """The least share of so many `votes` for one of two that cannot be a fair coin's, at `alpha`.

    The least k with 2 P(Bin(votes, 1/2) >= k) <= alpha, the two-sided test; votes + 1 if none.
    """
    counts = range(votes // 2 + 1, votes + 1)
    return next((k for k in counts if 2 * stats.binom.sf(k - 1, votes, 0.5) <= alpha), votes + 1)


def euclidean(actions: ActionSpace, values: int) -> float:
    """The radius of an L2 ball that holds every legal output for inputs of so many values.

    Raises:
        ValueError: If the actions are no ball of L2, L-inf or L1.
    """
    if not isinstance(actions, L2 | Linf | L1):
        raise ValueError(
            f"RandomizedSmoothing certifies balls of L2, Linf and L1, not {type(actions).__name__};"
            " use such actions for the attacker, or estimation=0 to play without certificates"
        )
    eps = actions.eps * (1 + Lp.tolerance + _ROUNDING)
    return eps * math.sqrt(values) if isinstance(actions, Linf) else eps
