"""Measures what the design promises, against floors measured in the same run.

Prints one table, and writes it as JSON to the path given, if any. One thread, CPU seconds for what
runs in this process, wall seconds for whole commands; medians, with the lowest and the highest.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

from arena import __main__ as shell
from arena import chance, schema
from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.core import Player, Turn
from arena.costs import ErrorRate, Negation
from arena.data.mnist import MNIST
from arena.defenses.erm import ERM
from arena.knowledge import Knowledge, Ledger, WhiteBox
from arena.learners.networks import CNN
from arena.studies.study import Setup, play

REPEATS = 7


def mnist_folder():
    """The folder of the IDX files: ARENA_MNIST, or beside the checkout; None if it is neither."""
    beside = Path(__file__).parents[3] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("ARENA_MNIST", beside))
    return folder if folder.is_dir() else None


def default_match(folder):
    """The match that `arena` plays without arguments."""
    OmegaConf.register_new_resolver("run_name", shell.run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda: "sweep", replace=True)
    with initialize_config_dir(str(shell.CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config"), resolve=True)
    made = {key: schema.build(config[key]) for key in ("game", "order", "attacker", "defender")}
    players = {name: made[name] for name in ("attacker", "defender")}
    return Setup(
        made["game"], players, made["order"], config["seed"], config["batch_size"], folder, config
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


def engine_overhead():
    """Shares of the default match's wall time: outside the strategies' moves, outside all passes.

    Outside the moves: dealing, views, checks, scoring, the log with TensorBoard and checkpoints.
    Outside all passes: these, and what strategies do besides passes (losses, the optimizer, steps
    and projections). The first match of the process, which imports things, is not counted.
    """
    outside_moves, outside_passes = [], []
    for repeat in range(REPEATS):
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


def command(*arguments, status=0):
    """Wall seconds of a whole command."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-m", "arena", *arguments], capture_output=True, cwd=folder
            )
        found.append(time.perf_counter() - start)
        assert done.returncode == status, done.stderr.decode()
    return found


def pgd_40(device):
    """PGD-40 with all that the arena adds, over a bare loop of the same passes, interleaved."""
    folder = mnist_folder()
    if folder is None:
        return None
    train, test = (part.to(device) for part in MNIST(str(folder)).load())
    model = ERM(CNN((16, 32)), epochs=1).train(train[:20000], seed=0)
    data = test[:1000]
    attack = PGD(steps=40, step=0.1)
    player = Player(Linf(0.1), Negation(ErrorRate()), Knowledge.white_box(), attack)

    def ours():
        ledger = Ledger(len(data), None, device)
        view = WhiteBox("defender", player.knowledge, {}, model, ledger)
        turn = Turn(player, 0, data, None, None, 0, 1000, lambda opponent, kind: view)
        attack.respond(turn)

    # Inputs like the attack's: a pass over MNIST as it is, mostly zeros, is cheaper by 5 %.
    moved = player.actions.sample(data.x, chance.keys(0, len(data), device))

    def floor():
        for step in range(41):
            x = moved.detach().requires_grad_(step < 40)
            loss = cross_entropy(model.module(x), data.y, reduction="sum")
            if step < 40:
                torch.autograd.grad(loss, x)

    def seconds(run):
        if device.type == "cuda":
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            return time.perf_counter() - start
        start = time.process_time()
        run()
        return time.process_time() - start

    ours(), floor()
    pairs = [(seconds(ours), seconds(floor)) for _ in range(REPEATS)]
    return [mine / bare for mine, bare in pairs]


def main():
    """Runs everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("json", nargs="?", type=Path, help="where to write the figures")
    path = parser.parse_args().json
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with contextlib.redirect_stdout(io.StringIO()):
        outside_moves, outside_passes = engine_overhead()
    rows = {
        "default match outside the moves, share": (outside_moves, 0.05),
        "default match outside all passes, share": (outside_passes, 0.05),
        "arena --help, seconds": (command("--help"), 2.0),
        "a mistyped key, seconds": (command("attacker.strategy.stps=3", status=2), 2.0),
        "a value out of range, seconds": (command("attacker.actions.eps=-1", status=2), 2.0),
        "an unplayable match, seconds": (command("attacker/knowledge=labels", status=2), 2.0),
        f"PGD-40 on MNIST over its bare passes ({device.type})": (pgd_40(device), 1.1),
    }
    table = Table(title=f"torch {torch.__version__}, {platform.machine()}, one thread")
    for name in ("what", "median", "lowest", "highest", "promised"):
        table.add_column(name, justify="left" if name == "what" else "right")
    figures = {}
    for name, (found, promised) in rows.items():
        if found is None:
            table.add_row(name, "no MNIST files here", "", "", "")
            continue
        numbers = statistics.median(found), min(found), max(found)
        figures[name] = dict(zip(("median", "lowest", "highest"), numbers, strict=True))
        table.add_row(name, *(f"{number:.3f}" for number in numbers), f"<= {promised:g}")
    Console(width=110).print(table)
    if path:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


main()
