"""Cross-play of matches: every round's attack on every round's model, whatever the order.

The matches are of one deal, so that all moves can meet. A cell on the diagonal is what its match
scored; the others say what would have been, had the attack met another model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from arena.core import Strategy
from arena.empirical.crossplay import CrossPlay
from arena.empirical.moves import Crafted, Failed, Model, kept_moves
from arena.games.scoring import Scoring

CLEAN = "clean"
"""The attack that leaves inputs as they are."""


def rounds_played(
    scoring: Scoring,
    strategy: Strategy,
    matches: Mapping[str, tuple[Path, Sequence[Mapping[str, Any]]]],
) -> CrossPlay:
    """The moves of all rounds of all matches, named `MATCH, round N`, and clean inputs.

    An attack was crafted against the model that its attacker saw in that round; against none if it
    saw none, or an opening, which is no round's. A model that nobody attacked, as the last one of a
    match in which the defender moves second, is left out: among models that were, it would look
    strong. Where no attacker sees a model, all stay.

    Args:
        scoring: Of the board on which all matches were played.
        strategy: The defender's.
        matches: By name: the folder, in which moves were kept, and the line of each round.

    Raises:
        ValueError: If the moves of a round were not kept.
    """
    models: dict[str, Model | Failed] = {}
    dealt = scoring.dealt
    nothing = torch.zeros(len(dealt), dtype=torch.int64)
    attacks: dict[str, Crafted | Failed] = {CLEAN: Crafted(dealt.x.cpu(), nothing, nothing)}
    against = {}
    for name, (folder, lines) in matches.items():
        for line in lines:
            number = line["round"]
            model, attack = kept_moves(folder, number, strategy)
            models[_named(name, number)], attacks[_named(name, number)] = model, attack
            seen = line["saw"].get("attacker", {}).get("defender", -1)
            if seen >= 0:
                against[_named(name, number)] = _named(name, seen)
    if against:
        models = {name: model for name, model in models.items() if name in against.values()}
    return CrossPlay(scoring, models, attacks, against)


def _named(match: str, number: int) -> str:
    return f"{match}, round {number}"
