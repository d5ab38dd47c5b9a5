"""Cross-play of matches: every round's attack on every round's model, whatever the order.

All matches are of one deal, so that all moves can meet. A cell on the diagonal is the score of a
match; the other cells are the scores if the attack had met another model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from arena.core import Idle, Player
from arena.empirical.crossplay import CrossPlay
from arena.empirical.moves import Failed, KeptMove, kept_moves
from arena.games.game import Board, Past

CLEAN = "clean"
"""The attack of an attacker who does nothing: its opening."""


def rounds_played(
    board: Board,
    players: Mapping[str, Player],
    matches: Mapping[str, tuple[Path, Sequence[Mapping[str, Any]]]],
) -> CrossPlay:
    """The moves of all rounds of all matches, named `MATCH, round N`, and the attacker's opening.

    An attack was crafted against the model that its attacker saw in that round. It was crafted
    against none if its attacker saw none, or an opening, which belongs to no round. A model that
    nobody attacked, such as the last one of a match in which the defender moves second, is left
    out: among models that were attacked it would look strong. Where no attacker sees a model, all
    of them stay.

    Args:
        board: The one on which all matches were played.
        players: Who played.
        matches: By name: the folder, in which moves were kept, and the line of each round.

    Raises:
        ValueError: If the moves of a round were not kept.
    """
    models: dict[str, KeptMove | Failed] = {}
    attacks: dict[str, KeptMove | Failed] = {}
    if (opening := board.opening("attacker")) is not None:
        packed = board.pack("attacker", opening)
        nothing = torch.zeros(len(board.data("attacker", Past())), dtype=torch.int64)
        attacks[CLEAN] = KeptMove("attacker", Idle(), packed, nothing, nothing)
    against = {}
    for name, (folder, lines) in matches.items():
        for line in lines:
            number = line["round"]
            moves = kept_moves(folder, number, players)
            models[_named(name, number)] = moves["defender"]
            attacks[_named(name, number)] = moves["attacker"]
            seen = line["saw"].get("attacker", {}).get("defender", -1)
            if seen >= 0:
                against[_named(name, number)] = _named(name, seen)
    if against:
        models = {name: model for name, model in models.items() if name in against.values()}
    return CrossPlay(board.lean(), models, attacks, against)


def _named(match: str, number: int) -> str:
    return f"{match}, round {number}"
