"""NES: projected descent along gradients estimated with antithetic Gaussian probes."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from arena import chance
from arena.attacks.engines.estimated import EstimatedDescent
from arena.classification import Perturbations
from arena.fields import Count, Positive, Share


@dataclass(frozen=True)
class NES(EstimatedDescent):
    """Ilyas et al. 2018 (1804.08598): the estimate of Algorithm 1, the descent of section 3.2.

    m_t = momentum * m_{t-1} + (1 - momentum) * estimate; x_{t+1} = project(x_t - step * eps *
    steepest(m_t)), the sign of m_t in an L-inf ball.

    Differs from the paper: the objective is the surrogate of the player's cost, and the geometry is
    that of the player's space; probes are clipped to the box; the best point is played, not the
    last; the step size is constant, where the published code halves it on a plateau.
    `EstimatedDescent` says which queries are made.

    Attributes:
        steps: Estimates and steps per example.
        pairs: Antithetic pairs per estimate (n / 2 in the paper).
        probe: Standard deviation of the probes (sigma), as a share of the box's width.
        step: Step size, as a share of the space's eps.
        momentum: Share of the running mean of estimates that each step keeps.
    """

    steps: Count = 19
    pairs: Count = 12
    probe: Positive = 0.001
    step: Positive = 0.2
    momentum: Share = 0.9

    moments: ClassVar[int] = 1

    def directions(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Standard normal."""
        return chance.normal(key, shape)

    def stepped(
        self, x: Tensor, gradient: Tensor, memory: Tensor, t: int, space: Perturbations
    ) -> tuple[Tensor, Tensor]:
        """A step of fixed size in the space's geometry; the memory is the mean."""
        memory = self.momentum * memory + (1 - self.momentum) * gradient
        return x - self.step * space.eps * space.steepest(memory[0]), memory
