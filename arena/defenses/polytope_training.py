"""Training on the convex outer polytope's bound."""

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

    The cross-entropy of the worst logits that `ConvexPolytope` allows. Its price grows with the
    number of values whose sign is open, in every layer but the first: for small networks. The
    radius rises linearly from 0, as in the authors' experiments (1805.12514, appendix).

    Attributes:
        ramp: Share of the training over which the radius rises to the space's eps.
    """

    ramp: Share = 0.5

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The robust loss.

        Raises:
            ValueError: If the attacker's space or a layer has no bounds, saying which have.
        """
        return bounded_loss(ConvexPolytope(), module, step, self.faced(step))
