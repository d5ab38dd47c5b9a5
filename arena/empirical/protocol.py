"""Who moves first, as four declarations: order, observation, commitment, granularity.

In a finite zero-sum game with mixtures the order alone changes nothing (minimax). It matters
through what the second player sees of the first one's move, through whether the first player may
commit to a mixture, and through whether the attacker replies to each example. So each of these is a
declaration of its own. Declarations that contradict each other are refused, with what to write
instead.
"""

from dataclasses import dataclass
from typing import Literal

from arena.fields import Declared, Share, Whole

_ORDERS = {
    "defender_first": "defender first",
    "attacker_first": "attacker first",
    "simultaneous": "at once",
}


@dataclass(frozen=True)
class Protocol(Declared):
    """How a game is played.

    Attributes:
        order: Who commits first. If both move at once, neither sees anything.
        observation: What the second player sees of the first one's move: the move itself (white
            box, if the attacker is second); the mixture that it is drawn from, but not the draw; a
            signal of the draw through a probe; or nothing.
        commitment: Whether the player who commits plays a single move or a mixture.
        granularity: Whether the attacker chooses one attack for the whole set of examples, or one
            attack per example.
        share: Of a probe: the probability, in [0, 1], that it shows the model; else it shows
            nothing.
        queries: Of a probe: the number of inputs, drawn at random, whose labels the attacker sees.

    Raises:
        ValueError: If a declaration is not one of its words, or two contradict each other.
    """

    order: Literal["defender_first", "attacker_first", "simultaneous"]
    observation: Literal["move", "mixture", "probe", "nothing"]
    commitment: Literal["pure", "mixed"]
    granularity: Literal["set", "example"] = "set"
    share: Share | None = None
    queries: Whole | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (why := self._at_once() or self._in_turn() or self._probe()) is not None:
            raise ValueError(f"protocol {self}: {why}")

    def _at_once(self) -> str | None:
        if self.order != "simultaneous":
            return None
        if self.observation == "move":
            return "white box means that the defender moved first: write order=defender_first"
        if self.observation != "nothing":
            return "players who move at once see nothing: write observation=nothing"
        if self.commitment == "pure":
            return (
                "single moves at once have a value only at a saddle point, where mixtures have the "
                "same value: write commitment=mixed"
            )
        return None

    def _in_turn(self) -> str | None:
        if self.order == "simultaneous":
            return None
        if self.observation == "nothing" and self.order == "defender_first":
            return (
                "a black box needs its access stated: write observation=probe with a share or a "
                "number of queries; with no access at all it is order=simultaneous"
            )
        if self.observation == "nothing":
            return (
                "a defender who sees nothing of the first move moves at once: write "
                "order=simultaneous"
            )
        if self.observation == "probe" and self.order == "attacker_first":
            return "a probe shows the attacker the defender's model: write order=defender_first"
        if self.observation == "mixture" and self.commitment == "pure":
            return (
                "the mixture of a single move shows the move itself: write observation=move, or "
                "commitment=mixed"
            )
        if self.observation == "probe" and self.commitment == "pure":
            return (
                "an attacker who knows that the defender plays its single best move needs no probe "
                "to see it: write observation=move, or commitment=mixed"
            )
        if self.observation == "move" and self.commitment == "mixed":
            return (
                "a mixture whose draw is seen is worth no more than its best move: write "
                "commitment=pure, or observation=mixture"
            )
        if (self.order, self.observation, self.granularity) == (
            "attacker_first",
            "move",
            "example",
        ):
            return (
                "the best combination of one attack per example cannot be found in reasonable "
                "time: write observation=mixture commitment=mixed, whose value is lower by at most "
                "(models - 1) / examples of the payoffs' span"
            )
        return None

    def _probe(self) -> str | None:
        stated = (self.share is not None) + (self.queries is not None)
        if self.observation == "probe" and stated != 1:
            return "a probe needs one of share and queries"
        if self.observation != "probe" and stated:
            return "share and queries belong to a probe: write observation=probe, or drop them"
        return None

    def __str__(self) -> str:
        """All four declarations in one line."""
        seen: str = self.observation
        if self.share is not None:
            seen = f"probe (share {self.share:g})"
        if self.queries is not None:
            seen = f"probe ({self.queries} queries)"
        order = _ORDERS.get(self.order, self.order)
        grain = "one attack per example" if self._finely else "one attack for the whole set"
        return f"{order}, {self.commitment}, {seen} seen, {grain}"

    @property
    def _finely(self) -> bool:
        return self.granularity == "example"

    @property
    def symbol(self) -> str:
        """The value's symbol: V_DF, V_K, v or V_AF, with `pe` for one attack per example."""
        letter = "v"
        if self.observation == "move":
            letter = "V_DF" if self.order == "defender_first" else "V_AF"
        elif self.observation == "probe":
            seen = f"{self.queries} labels" if self.share is None else f"{self.share:g}"
            letter = f"V_K({seen})"
        if not self._finely:
            return letter
        return f"{letter}_pe" if letter == "v" else f"{letter},pe"

    def at_most(self, other: "Protocol") -> bool:
        """Whether no game is worth more to the defender under this protocol than under the other.

        V_DF <= V_K <= v <= V_AF, and one attack per example never leaves the defender more. Two
        probes can be compared if one shows all that the other shows.
        """
        if other._finely and not self._finely:
            return False
        if self._favor == other._favor == 1:
            for mine, theirs in ((self.share, other.share), (self.queries, other.queries)):
                if mine is not None and theirs is not None:
                    return mine >= theirs
            return False
        return self._favor <= other._favor

    @property
    def _favor(self) -> int:
        """From 0, where the attacker sees everything, to 3, where the defender does."""
        if self.observation == "move":
            return 0 if self.order == "defender_first" else 3
        return 1 if self.observation == "probe" else 2


DEFENDER_FIRST = Protocol("defender_first", "move", "pure")
AT_ONCE = Protocol("simultaneous", "nothing", "mixed")
ATTACKER_FIRST = Protocol("attacker_first", "move", "pure")
DEFENDER_FIRST_PER_EXAMPLE = Protocol("defender_first", "move", "pure", "example")
MIXTURE_PER_EXAMPLE = Protocol("defender_first", "mixture", "mixed", "example")
HALF_SEEN = Protocol("defender_first", "probe", "mixed", share=0.5)

STANDARD = (
    DEFENDER_FIRST,
    HALF_SEEN,
    AT_ONCE,
    ATTACKER_FIRST,
    DEFENDER_FIRST_PER_EXAMPLE,
    MIXTURE_PER_EXAMPLE,
)
"""The protocols that show who should move first, and whether mixing helps."""
