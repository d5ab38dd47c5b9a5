"""Training on the bound of the convex outer polytope."""

from dataclasses import dataclass

from torch import Tensor, nn

from arena.certificates.polytope import ConvexPolytope
from arena.defenses.inner import InformedTraining
from arena.defenses.interval_training import bounded_loss
from arena.fields import Share
from arena.training.trainer import Step


@dataclass(frozen=True)
class PolytopeTraining(InformedTraining):
    """Wong & Kolter 2018 (1711.00851), equation 14, against the attacker's declared space.

    Minimises the cross-entropy of the worst logits that `ConvexPolytope` allows. The price grows
    with the number of values of undecided sign in every layer but the first, so this is for small
    networks. The radius rises linearly from 0, as in the authors' experiments (1805.12514,
    appendix).

    Attributes:
        ramp: Share of the training over which the radius rises to the space's eps.
    """

    ramp: Share = 0.5

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The robust loss.

        Raises:
            ValueError: If there are no bounds for the attacker's space or for a layer.
        """
        return bounded_loss(ConvexPolytope(), module, step, self.faced(step))
