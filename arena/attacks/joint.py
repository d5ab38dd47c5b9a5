"""The joint attack on a detector that compares a model's answers to several looks at an input."""

from dataclasses import dataclass

from arena.attacks.engines.looks import Looks, compares, mean
from arena.attacks.engines.wrapped import AttackWrapper
from arena.core import Turn
from arena.knowledge import WhiteBox
from arena.training.classifiers import committed


@dataclass(frozen=True)
class Joint(AttackWrapper):
    """He et al. 2017 (1706.04701), section 4: fool every look of the detector in the same way.

    A detector that compares the answers to an input and to its squeezed copies notices nothing
    where all of these answers are wrong in the same way. So the attack within sees, in place of the
    detector, the mean of the log-probabilities of all looks. They have a gradient where the
    detector's own distance, of probabilities, is flat because the model is sure of each answer. Put
    it inside `BPDA` where a squeezer has no derivative.

    Differs from the paper in the search, which is that of the attack within, and in the loss, which
    is the surrogate of the player's own cost. A defender that compares nothing is attacked as it
    is.
    """

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view of the looks."""
        for part in view.module.modules():
            if compares(part):
                return view.over(committed(Looks(part, mean), turn.data.classes))
        return view
