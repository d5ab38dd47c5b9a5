"""A move by algorithm: a player that commits to how it will train, before the data are known."""

from dataclasses import dataclass, replace

from arena.core import Labelled, Move, Player, Strategy, Turn
from arena.knowledge import View
from arena.store import Store


@dataclass(frozen=True)
class Algorithm:
    """What a model will be made by; a game turns it into one once the data are known.

    A board makes it a player's move by returning it from `Board.asked`. It packs as its seed.

    Attributes:
        strategy: How it trains.
        seed: Of all its randomness.
    """

    strategy: Strategy
    seed: int

    def on(
        self, data: Labelled, player: Player, batch_size: int = 1024, store: Store | None = None
    ) -> Move:
        """The move that the strategy makes of these data, seeing nobody.

        Args:
            data: What it trains on.
            player: Whose algorithm it is.
            batch_size: The most examples that it should put through a model at once.
            store: Where trained models are kept; None: nowhere.

        Raises:
            PermissionError: If the strategy looks at an opponent.
        """

        def look(opponent: str, kind: type[View]) -> View:
            raise PermissionError(
                f"an algorithm is run on data alone and cannot see a {kind.__name__} of {opponent}"
            )

        turn = Turn(
            player=replace(player, strategy=self.strategy),
            round=0,
            data=data,
            aside=None,
            last=None,
            seed=self.seed,
            batch_size=batch_size,
            look=look,
            store=store,
        )
        return self.strategy.respond(turn)
