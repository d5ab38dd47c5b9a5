"""Transfer: attack surrogates of one's own, and send what fools them [F12, F13]."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from arena import chance
from arena.attacks.bpda import BPDA
from arena.attacks.engines.averaged import averaged
from arena.attacks.pgd import PGD
from arena.classification import Classifier, Learner
from arena.core import Player, Strategy, Task, Turn
from arena.fields import Count
from arena.knowledge import View
from arena.training.fitted import Fitted
from arena.training.trainer import Trainer


@dataclass(frozen=True)
class Transfer(Strategy):
    """Trains surrogates and attacks them as a white box; never asks the target anything.

    A surrogate is trained by the defender's own algorithm, with its architecture, on its training
    data, as far as the knowledge grants these; elsewhere by the attacker's guess, on the attacker's
    own data. Several surrogates are attacked in combination with equal weights, because what fools
    many models is likely to fool another (Liu et al. 2017, 1611.02770, section 5). What is combined
    are the logits (1710.06081, equation 9: the best there), the probabilities (its equation 10;
    1611.02770, equation 4) or the losses (equation 11), which are the surrogates of the player's
    cost: see `averaged`.

    Attributes:
        guess: The algorithm it assumes, with the architecture it assumes; or several of these.
        attack: The attack on the surrogates.
        seeds: How many surrogates are trained of each guess.
        combine: What is averaged over them.

    Raises:
        ValueError: On an empty guess.
    """

    guess: Trainer | Fitted | tuple[Trainer | Fitted, ...]
    attack: Strategy = PGD()
    seeds: Count = 1
    combine: Literal["logits", "probabilities", "losses"] = "logits"

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": View}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guess == ():
            raise ValueError("Transfer.guess is empty; give at least one algorithm to train")

    def check(self, player: Player) -> None:
        """Raises ValueError if the attack does not fit the player, or not the surrogates."""
        self.attack.check(player)
        wanted = self.attack.needs.get("defender", View)
        for guess in self._guesses:
            if not issubclass(guess.exposes, wanted):
                raise ValueError(
                    f"Transfer.attack={type(self.attack).__name__} needs a {wanted.__name__} of "
                    f"its surrogate, and guess={type(guess).__name__} shows a "
                    f"{guess.exposes.__name__} at most; use an attack by scores, such as Square"
                )
        several = isinstance(self.guess, tuple) or self.seeds > 1
        if several and isinstance(self.attack, BPDA):
            raise ValueError(
                "BPDA looks into one module, and Transfer combines several; give it one guess and "
                "seeds=1, or another attack"
            )

    @property
    def _guesses(self) -> tuple[Trainer | Fitted, ...]:
        return self.guess if isinstance(self.guess, tuple) else (self.guess,)

    def respond(self, turn: Turn) -> Tensor:
        """What fools the surrogates most, [B, ...].

        Raises:
            ValueError: If there are no data to train a surrogate on.
        """
        surrogates = self._surrogates(turn)
        equal = [1 / len(surrogates)] * len(surrogates)
        own = averaged(surrogates, equal, self.combine, turn)
        inner = replace(turn, look=lambda opponent, kind: own, closing=False)
        moved: Tensor = self.attack.respond(inner)
        return moved

    def _surrogates(self, turn: Turn) -> list[Classifier]:
        view = turn.see("defender", View)
        data = view.training_data if view.knows("training_data") else turn.aside
        if data is None:
            raise ValueError(
                "Transfer has no data to train a surrogate on: grant "
                "knowledge.training_data=true or set game.attacker_share above 0"
            )
        player, dealt = turn.player, turn.data
        task = Task(dealt.shape, dealt.classes, dealt.box, player.actions, player.cost)
        surrogates: list[Classifier] = []
        for k, guess in enumerate(self._guesses * self.seeds):
            algorithm = view.algorithm if view.knows("algorithm") else guess
            learner: Learner | None = (
                view.architecture
                if view.knows("architecture")
                else guess.facts().get("architecture")
            )
            # The first has the seed of a single surrogate.
            seed = chance.seed_of(turn.seed, "surrogate", *([k] if k else []))
            surrogates.append(algorithm.train(data, seed, task, learner, turn.store))
        return surrogates
