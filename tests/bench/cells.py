"""What cross-play costs beside the bare passes, and what its cells take to keep and to load."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from arena.actions.decisions import Confidence
from arena.actions.lp import Linf
from arena.attacks.honest import Honest
from arena.core import Labelled, Player
from arena.costs import ErrorRate, Negation
from arena.defenses.erm import ERM
from arena.empirical.cells import Cells
from arena.empirical.crossplay import CrossPlay, cross_play
from arena.empirical.moves import KeptMove
from arena.executors.executor import Serial
from arena.games.evasion import EvasionBoard
from arena.knowledge import Knowledge
from arena.learners.networks import CNN

from .solvers import clocked

EXAMPLES = 1000
DIGITS, MNIST = (1, 8, 8), (1, 28, 28)
STRATEGY = ERM(CNN((16, 32)), epochs=1)


def models(n, shape, start=0):
    """As many models as asked for, untrained; no two are the same."""
    made = {}
    for number in range(start, start + n):
        module = STRATEGY.learner.build(shape, 10, number)
        made[f"model {number}"] = KeptMove.of("defender", STRATEGY, module.state_dict())
    return made


def crossplay(rows, columns, shape):
    """Random inputs sent to untrained models: what they cost is no matter here."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(EXAMPLES, *shape, generator=generator)
    y = torch.randint(10, (EXAMPLES,), generator=generator)
    error = ErrorRate()
    players = {
        "attacker": Player(Linf(1.0), Negation(error), Knowledge(), Honest()),
        "defender": Player(Confidence(), error, Knowledge(), STRATEGY),
    }
    dealt, nobody = Labelled(x, y, 10), Labelled(x[:0], y[:0], 10)
    board = EvasionBoard(players, dealt, torch.arange(EXAMPLES), nobody, None, 2048)
    none = torch.zeros_like(y)
    sent = (torch.rand(x.shape, generator=generator) for _ in range(columns))
    attacks = {
        f"attack {number}": KeptMove("attacker", Honest(), {"x": each}, none, none)
        for number, each in enumerate(sent)
    }
    return CrossPlay(board, models(rows, shape), attacks)


def bare(play, name):
    """The passes of one model over all attacks, and nothing else."""
    model = play.models[name].entry(play.board).move
    with torch.no_grad():
        for attack in play.attacks.values():
            model.labels(attack.packed["x"])


def filled(play, path):
    """A file with random costs in every cell of the cross-play, and facts of every model."""
    generator, cells = np.random.default_rng(0), Cells(path)
    for model in play.models:
        error = generator.integers(0, 2, (len(play.attacks), 1, EXAMPLES)).astype(float)
        costs = np.concatenate([-error, error], 1)
        keys = (play.key(model, attack) for attack in play.attacks)
        facts = np.outer([1.0, 0.0, 0.0], np.ones(EXAMPLES))
        cells.keep(dict(zip(keys, costs, strict=True)) | {play.facts_key(model): facts})
    return cells


def counted(play, cells):
    """CPU seconds of a cross-play, and how many of its cells were played."""
    played = []
    seconds, _ = clocked(cross_play, [play], cells, Serial(), lambda _, n: played.append(n))
    return seconds, sum(played)


def rows(repeats):
    """Every figure by its name: what was found, and what is promised."""
    found = {
        "a row more of 100 x 100: cells played": ([], 100),
        "a row more of 100 x 100, to its bare passes": ([], 1.2),
        "a column more of 100 x 100: cells played": ([], 100),
        "200 x 200 of 1,000 examples, MB kept": ([], 100),
        "200 x 200 of 1,000 examples, seconds to load": ([], 1.0),
    }
    figures = [figure for figure, _ in found.values()]
    play, large = crossplay(100, 100, MNIST), crossplay(200, 200, DIGITS)
    wide = crossplay(100, 101, DIGITS)
    square = dataclasses.replace(wide, attacks=dict(list(wide.attacks.items())[:100]))
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            cells, new = filled(play, Path(folder, "square")), f"model {1000 + repeat}"
            row = dataclasses.replace(play, models=play.models | models(1, MNIST, 1000 + repeat))
            bare(row, new)  # the first passes of a process take up to twice as long
            before, _ = clocked(bare, row, new)
            seconds, played = counted(row, cells)
            loading, _ = counted(row, cells)
            after, _ = clocked(bare, row, new)
            figures[0].append(played)
            figures[1].append(2 * (seconds - loading) / (before + after))
            figures[2].append(counted(wide, filled(square, Path(folder, "narrow")))[1])
            path = Path(folder, "large")
            cells = filled(large, path)
            figures[3].append(path.stat().st_size / 1e6)
            loading, (game,) = clocked(cross_play, [large], cells, Serial())
            figures[4].append(loading)
            assert game.costs["defender"].shape == (200, 200, EXAMPLES)
    return found
