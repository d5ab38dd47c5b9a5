"""What the engine costs: its share of a match beside the passes, and the start-up of commands."""

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from arena import __main__ as shell
from arena import schema
from arena.studies.study import Setup, play


def default_match(folder):
    """The match that `arena` plays without arguments."""
    OmegaConf.register_new_resolver("run_name", shell.run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda: "sweep", replace=True)
    with initialize_config_dir(str(shell.CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config"), resolve=True)
    made = {key: schema.build(config[key]) for key in ("game", "order", "attacker", "defender")}
    players = {name: made[name] for name in ("attacker", "defender")}
    return Setup(
        game=made["game"],
        players=players,
        order=made["order"],
        seed=config["seed"],
        batch_size=config["batch_size"],
        folder=folder,
        store=None,
        config=config,
    )


@contextlib.contextmanager
def clocked_passes():
    """Yields a list whose only entry grows by the seconds of all forward and backward passes."""
    spent, inside = [0.0], [False]

    def clocked(function):
        def run(*args, **kwargs):
            if inside[0]:
                return function(*args, **kwargs)
            inside[0], start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[0] += time.perf_counter() - start
                inside[0] = False

        return run

    places = ((torch.nn.Module, "__call__"), (torch.autograd, "grad"), (torch.Tensor, "backward"))
    originals = [getattr(owner, name) for owner, name in places]
    for owner, name in places:
        setattr(owner, name, clocked(getattr(owner, name)))
    try:
        yield spent
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


def engine_overhead(repeats):
    """Shares of the default match's wall time: outside the strategies' moves, outside all passes.

    Outside the moves: dealing, views, checks, scoring, the log with TensorBoard and checkpoints.
    Outside all passes: these, and what strategies do besides passes (losses, the optimizer, steps
    and projections). The first match of the process, which imports things, is not counted.
    """
    outside_moves, outside_passes = [], []
    for repeat in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder, clocked_passes() as passes:
            match = default_match(Path(folder))
            start = time.perf_counter()
            played = play(match, 3, lambda line: None)
            wall = time.perf_counter() - start
        moves = sum(sum(line["seconds"].values()) for line in played.lines)
        if repeat:
            outside_moves.append((wall - moves) / wall)
            outside_passes.append((wall - passes[0]) / wall)
    return outside_moves, outside_passes


def command(*arguments, repeats, status=0):
    """Wall seconds of a whole command."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-m", "arena", *arguments], capture_output=True, cwd=folder
            )
        found.append(time.perf_counter() - start)
        assert done.returncode == status, done.stderr.decode()
    return found


def rows(repeats):
    """Every figure by its name: what was found, and what is promised."""
    with contextlib.redirect_stdout(io.StringIO()):
        outside_moves, outside_passes = engine_overhead(repeats)

    def seconds(*arguments, status=2):
        return command(*arguments, repeats=repeats, status=status), 2.0

    return {
        "default match outside the moves, share": (outside_moves, 0.05),
        "default match outside all passes, share": (outside_passes, 0.05),
        "arena --help, seconds": seconds("--help", status=0),
        "a mistyped key, seconds": seconds("attacker.strategy.stps=3"),
        "a value out of range, seconds": seconds("attacker.actions.eps=-1"),
        "an unplayable match, seconds": seconds("attacker/knowledge=labels"),
    }
