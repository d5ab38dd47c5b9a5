"""The game of mean payoffs for other libraries: nashpy's and OpenSpiel's objects, Gambit's files.

Only means are converted; pairing, intervals and attackers who reply to each example are lost.
"""

import importlib
from typing import Any

from arena.empirical.game import EmpiricalGame
from arena.solvers.nfg import NormalForm


def normal_form(game: EmpiricalGame, title: str = "arena") -> NormalForm:
    """The mean payoffs, with models as rows and attacks as columns; for `nfg.write`.

    Args:
        game: With D models and A attacks.
        title: Of the result.

    Raises:
        ValueError: If cells are missing.
    """
    defender, attacker = (game.payoffs(player).mean(2) for player in ("defender", "attacker"))
    names = game.models, game.attacks
    return NormalForm(title, ("defender", "attacker"), *names, (defender, attacker))


def to_nashpy(game: EmpiricalGame) -> Any:
    """A `nashpy.Game`.

    Raises:
        ImportError: If nashpy is not installed.
        ValueError: If cells are missing.
    """
    return _installed("nashpy", "nashpy").Game(*normal_form(game).payoffs)


def to_openspiel(game: EmpiricalGame) -> Any:
    """A `pyspiel.MatrixGame` with the names of models and attacks.

    Raises:
        ImportError: If OpenSpiel is not installed.
        ValueError: If cells are missing.
    """
    form = normal_form(game)
    row, column = (payoffs.tolist() for payoffs in form.payoffs)
    create = _installed("pyspiel", "open_spiel").create_matrix_game
    return create("arena", form.title, list(form.rows), list(form.columns), row, column)


def _installed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(
            f"{package} is not installed: pip install {package}, or write the game to a file with "
            "arena.solvers.nfg.write"
        ) from None
