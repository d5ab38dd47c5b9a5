"""Auto-PGD for L1 balls: sparse steps whose sparsity follows the best place so far."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.actions.lp import L1
from arena.attacks.apgd import APGD
from arena.attacks.descent import Search, Walks, require_perturbations
from arena.core import Player

_FIRST_SHARE = 0.2  # of the coordinates that move in the first steps
_SHRINK = 1.5  # by which steps and sparsity go down (Algorithm 2)
_SHORTEST = 10  # the shortest step is eps over this
_EVERY = 0.04  # share of the steps between two looks at the sparsity


@dataclass(frozen=True)
class APGDL1(APGD):
    """Croce & Hein 2021 (2103.01208), Algorithm 1 with the adaptive sparsity of section 4.2.

    A step moves the k coordinates of largest gradient by equal amounts, eta in all, and projects
    onto ball and box together (the space's own exact projection). At each look k becomes the number
    of coordinates in which the best place differs from the input, over 1.5; where that number fell
    by more than 5 % the walk goes back to its best place with steps of eps again, else eta falls by
    1.5, down to eps / 10. Without the paper's first runs in larger balls.
    """

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is no L1 ball, or the cost has no surrogate."""
        space = require_perturbations(player, "APGDL1")
        if not isinstance(space, L1):
            raise ValueError(f"APGDL1 steps in L1 balls, not {space}; use actions=l1")

    def begin(self, search: Search, walks: Walks) -> None:
        """As APGD, moving a fifth of the coordinates."""
        super().begin(search, walks)
        size = walks.x.flatten(1).shape[1]
        walks.own |= {
            "length": torch.ones_like(walks.own["least"]),
            "moving": torch.full_like(walks.own["least"], _FIRST_SHARE * size),
            "differed": torch.full_like(walks.own["least"], size),
        }

    def advance(self, search: Search, walks: Walks, loss: Tensor, gradient: Tensor) -> Tensor:
        """A sparse step from where the walk is, or from its best place."""
        own, space = walks.own, search.space
        self.remember(walks, loss, gradient)
        x, gradient = self._looked(walks, gradient)
        rows = gradient.flatten(1)
        place = rows.abs().argsort(dim=1, descending=True).argsort(dim=1)
        signs = rows.sign() * (place < own["moving"].floor().clamp(min=1)[:, None])
        count = signs.abs().sum(1).clamp(min=1)
        step = signs * (space.eps * own["length"] / count)[:, None]
        return space.project(walks.given, x - step.reshape(x.shape))

    def _looked(self, walks: Walks, gradient: Tensor) -> tuple[Tensor, Tensor]:
        own = walks.own
        at = (walks.t > 0) & (walks.t % max(round(_EVERY * self.steps), 1) == 0)
        if at.device.type == "cpu" and not bool(at.any()):
            return walks.x, gradient
        differs = (own["best"] != walks.given).flatten(1).sum(1).to(walks.x.dtype)
        sparser = differs < 0.95 * own["differed"]
        length = torch.where(sparser, 1.0, (own["length"] / _SHRINK).clamp(min=1 / _SHORTEST))
        own["length"] = torch.where(at, length, own["length"])
        own["moving"] = torch.where(at, differs / _SHRINK, own["moving"])
        own["differed"] = torch.where(at, differs, own["differed"])
        return self.back(walks, at & sparser, gradient)
