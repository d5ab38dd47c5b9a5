"""What decides a cell's costs, as the key that they are kept by: nothing but content.

Names play no part, nor does the study that it was played for. What has no stable description (a
plain object among its values) has no key, and is not kept.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch

from arena.empirical.game import PLAYERS
from arena.empirical.moves import Crafted, Model
from arena.games.scoring import Scoring
from arena.store import code, fingerprint


@dataclass(frozen=True)
class Keys:
    """Of cells that are scored alike.

    Attributes:
        scoring: How.
    """

    scoring: Scoring

    def cell(self, model: Model, attack: Crafted) -> bytes | None:
        """Of the costs of an attack on a model."""
        return self._key(model, attack.digest)

    def facts(self, model: Model) -> bytes | None:
        """Of what is known of a model alone."""
        return self._key(model, b"facts and answers")

    def _key(self, model: Model, more: bytes) -> bytes | None:
        if model.digest is None or self._rules is None:
            return None
        return hashlib.sha256(model.digest + self._rules + more).digest()

    @cached_property
    def _rules(self) -> bytes | None:
        """A hash of what decides costs beside the moves.

        That is the deal, the declared actions and costs and their code, and what decides the last
        bits of an answer.
        """
        dealt = self.scoring.dealt
        players = [self.scoring.players[name] for name in PLAYERS]
        declared = [(player.actions, player.cost) for player in players]
        if " at 0x" in repr(declared):
            return None
        parts = (
            fingerprint(dealt.x, dealt.y, self.scoring.scored),
            (dealt.classes, dealt.box, repr(declared)),
            code(declared, ("actions", "games")),
            (torch.__version__, torch.get_num_threads(), dealt.x.device.type),
        )
        return hashlib.sha256(repr(parts).encode()).digest()
