"""Input diversity: gradients at inputs that are resized and padded at random."""

from dataclasses import dataclass

from arena.attacks.engines.wrapped import AttackWrapper
from arena.attacks.eot import EOT
from arena.core import Turn
from arena.fields import Share
from arena.knowledge import WhiteBox
from arena.transformations.resize_pad import ResizePad


@dataclass(frozen=True)
class InputDiversity(AttackWrapper):
    """Xie et al. 2019 (1803.06978), section 3.3: each pass at T(x; p), equation 5.

    Put it around the attack on a surrogate, so that what it finds transfers. With probability p an
    image is resized at random and padded with 0 at random places; otherwise it is left alone. Every
    example and pass draws anew: this is an expectation over transformation with a single draw.
    Differs from the paper in that images shrink and keep their canvas (see `ResizePad`), and in
    that an attack that keeps its best iterate judges it as transformed. The method is made for
    large images and deep models. Between small nets on digits (8 x 8) and MNIST (28 x 28) it was
    measured to lower the share that transfers, and more so for a smaller `least`.

    Attributes:
        probability: The probability p of a transformation (the paper's choice: 0.5).
        least: Smallest share of height and width that is left.

    Raises:
        ValueError: When it plays on inputs that are not images.
    """

    probability: Share = 0.5
    least: Share = 0.9

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view through a random transformation."""
        transformation = ResizePad(self.least, self.probability)
        once = EOT(draws=1, average="logits", transformation=transformation)
        return once.through(view, turn)
