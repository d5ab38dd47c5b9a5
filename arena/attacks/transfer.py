"""Transfer: attack a surrogate of one's own and send what fools it [F12]."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from arena import chance
from arena.attacks.pgd import PGD
from arena.core import Learner, Player, Strategy, Task, Turn
from arena.knowledge import Knowledge, Ledger, View, WhiteBox
from arena.learners.training import Trainer


@dataclass(frozen=True)
class Transfer(Strategy):
    """Trains a surrogate and attacks it as a white box; the target is never asked anything.

    The surrogate is the defender's own algorithm, architecture and training data as far as the
    knowledge grants them; the attacker's guesses and its own data elsewhere.

    Attributes:
        guess: The algorithm it assumes, with the architecture it assumes.
        attack: What it does to the surrogate.
    """

    guess: Trainer
    attack: Strategy = PGD()

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": View}

    def check(self, player: Player) -> None:
        """Raises ValueError if the attack on the surrogate does not fit the player."""
        self.attack.check(player)

    def respond(self, turn: Turn) -> Tensor:
        """What fools the surrogate most, [B, ...].

        Raises:
            ValueError: If there are no data to train a surrogate on.
        """
        view = turn.see("defender", View)
        algorithm = view.algorithm if view.knows("algorithm") else self.guess
        learner: Learner | None = (
            view.architecture if view.knows("architecture") else self.guess.learner
        )
        data = view.training_data if view.knows("training_data") else turn.aside
        if data is None:
            raise ValueError(
                "Transfer has no data to train a surrogate on: grant "
                "knowledge.training_data=true or set game.attacker_share above 0"
            )
        player, dealt = turn.player, turn.data
        task = Task(dealt.shape, dealt.classes, dealt.box, player.actions, player.cost)
        surrogate = algorithm.train(data, chance.seed_of(turn.seed, "surrogate"), task, learner)
        own = WhiteBox(
            "surrogate",
            Knowledge.white_box(),
            {},
            surrogate,
            Ledger(len(turn.data), None, turn.data.x.device),
        )
        inner = replace(turn, look=lambda opponent, kind: own, closing=False)
        moved: Tensor = self.attack.respond(inner)
        return moved
