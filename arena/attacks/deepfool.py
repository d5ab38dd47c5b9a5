"""DeepFool: steps onto the nearest linearised boundary, again and again, until one is crossed."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L1, L2, Linf
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import Walks
from arena.classification import Perturbations
from arena.fields import Count, NonNegative

_BEYOND = 1e-5
"""How much further each step goes, as a share of the way so far."""

_PATIENCE = 10
"""Steps before the box's sides are allowed for."""


@dataclass(frozen=True)
class DeepFool(MinimumNorm[None]):
    """Moosavi-Dezfooli et al. 2016 (1511.04599), Algorithm 2; section 3.3 for L1 and L-inf.

    The boundary to each of the likeliest mistakes is taken to be the hyperplane given by the
    gradient of its margin. The walk goes to the nearest hyperplane, and beyond it by a share
    `overshoot` of the step: in L2 by margin / |w|^2 * w, in any norm by margin over dual norm along
    the space's steepest direction. It ends at the first mistake, which is near but not the nearest.

    A step is one pass and at most `candidates` gradients. That makes `steps + 1` passes and `steps
    * candidates` gradients, but most walks end within five steps.

    Differs from the paper: the candidates are the likeliest mistakes at the walk's present place.
    The step is cut to the box. Because what is cut would be missing at the boundary, the step goes
    `_BEYOND` further (1e-4 in the published code). Steps that come out short end at nearer
    mistakes, but they may never arrive: after `_PATIENCE` steps, what would leave the box at once
    is dropped from the gradient.

    Attributes:
        steps: The most steps.
        candidates: Mistakes whose boundaries are considered; the paper takes 10 answers.
        overshoot: The share of each step that is added to it (eta).
    """

    steps: Count = 50
    candidates: Count = 9
    overshoot: NonNegative = 0.02

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Linf, L2, L1)
    instead: ClassVar[str] = "strategy=sigma_zero"

    def begin(self, search: Search, walks: Walks[None]) -> None:
        """Starts at the input."""

    def loss(self, search: Search, walks: Walks[None], logits: Tensor) -> Tensor:
        """The margins to the likeliest mistakes [L, candidates]; infinite where there are fewer."""
        mistakes = self.mistakes(search, walks.y)
        count = min(self.candidates, logits.shape[1] - 1)
        right = logits.masked_fill(mistakes, -torch.inf).amax(1, keepdim=True)
        return right - logits.masked_fill(~mistakes, -torch.inf).topk(count, dim=1).values

    def gradient(
        self, search: Search, walks: Walks[None], loss: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The margin [L] of the nearest boundary, and its gradient [L, ...]."""
        nearest = torch.full_like(walks.t, torch.inf, dtype=loss.dtype)
        height, slope = torch.zeros_like(nearest), torch.zeros_like(x)
        for margin in loss.unbind(1):
            (normal,) = torch.autograd.grad(margin.sum(), x, retain_graph=True)
            patient = walks.wide(walks.t < _PATIENCE)
            normal = torch.where(patient, normal, self.free(search, walks, normal))
            distance = margin.detach() / self.steepness(search, normal)
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            height = torch.where(nearer, margin.detach(), height)
            slope = torch.where(walks.wide(nearer), normal, slope)
        return height, slope

    def done(self, search: Search, rows: Tensor) -> Tensor:
        """Which examples have a mistake, or can have none, bool [L]."""
        return self.hopeless(search, rows) | search.best.second[rows].isfinite()

    def advance(self, search: Search, walks: Walks[None], loss: Tensor, gradient: Tensor) -> Tensor:
        """Onto the nearest hyperplane and a little beyond, then into the box."""
        steepness, space = self.steepness(search, gradient), search.space
        distance = loss / torch.where(steepness == 0, 1.0, steepness)
        distance = distance + _BEYOND * space.size(walks.given, walks.x)
        length = walks.wide((1 + self.overshoot) * distance)
        return (walks.x - length * space.steepest(gradient)).clamp(*space.box)
