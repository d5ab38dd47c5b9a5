"""Measures what the design promises, against floors measured in the same run.

Prints a table for each part and, with --json, writes all figures, the single ones too. One thread;
CPU seconds for solvers, attacks and trainings, on CUDA wall seconds; wall seconds for matches and
commands. Tables show medians, with the lowest and the highest.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import scipy
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from . import attacks, cells, match, models, solvers, training

PARTS = ("all", "match", "solvers", "cells", "attacks", "training")


def spread(found, digits=2):
    """The median, with the lowest and the highest; a dash where there is nothing."""
    if not found:
        return "—"
    middle = f"{statistics.median(found):.{digits}f}"
    return f"{middle} ({min(found):.{digits}f}-{max(found):.{digits}f})"


def known(value, digits=1):
    """A number, or a dash."""
    return "—" if value is None else f"{value:.{digits}f}"


def promises_table(title, rows):
    """What the engine or solving costs."""
    table = Table("what", "median (lowest-highest)", "promised", title=title)
    for name, (found, promised) in rows.items():
        table.add_row(name, spread(found, 3), f"<= {promised:g}")
    return table


def training_table(title, rows):
    """What an epoch of each training takes."""
    table = Table(
        "one epoch", "seconds", "to the floor", "promised", "to our layout's", title=title
    )
    for name, row in rows.items():
        promised = training.PROMISED.get(name)
        table.add_row(
            name,
            spread(row["seconds"]),
            spread(row["to floor"], 3),
            "" if promised is None else f"<= {promised:g}",
            spread(row["stricter"], 3),
        )
    return table


def attack_table(title, rows):
    """What attacks cost. Left: the robust accuracy, or the median norm and who has none."""
    ratios = ("seconds", "to fixed floor", "to active floor")
    table = Table("attack", "by", title=title)
    for name in (*ratios, "passes + back", "waits", "MiB", "left", "beyond"):
        table.add_column(name, justify="right")
    for row in rows:
        if "failed" in row:
            left = f"{known(row['median norm'], 3)}, {row['failed']:.1%} none"
        else:
            left = f"{row['robust accuracy']:.1%}"
        table.add_row(
            row["attack"],
            row["by"],
            *(spread(row.get(name)) for name in ratios),
            f"{row['forwards']:.1f} + {row['gradients']:.1f}",
            *(known(row[name]) for name in ("waits", "MiB")),
            left,
            f"{row['violation']:.1e}",
        )
    return table


def main():
    """Runs what the command line asks for; by default everything."""
    contests = attacks.contests()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, default="all")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement")
    parser.add_argument("--examples", type=int, default=1000, help="MNIST test images to attack")
    parser.add_argument("--images", type=int, default=1280, help="MNIST images to train on")
    parser.add_argument("--only", default=",".join(contests), help="attacks, with commas between")
    parser.add_argument("--models", default="weak,robust", help="of weak, robust, wide")
    parser.add_argument("--folder", type=Path, help="keeps the trained models, to be used again")
    given = parser.parse_args()
    for name, known_names in (("only", contests), ("models", models.NAMES)):
        if unknown := set(getattr(given, name).split(",")) - set(known_names):
            parser.error(f"--{name} knows {', '.join(known_names)}, not {', '.join(unknown)}")
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's and scipy's: their threads' waiting would count as CPU seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = platform.machine() if device.type == "cpu" else torch.cuda.get_device_name(device)
    figures = {"torch": torch.__version__, "device": where, "cores": os.cpu_count()}
    where = f"torch {torch.__version__}, {where}, one thread"
    console = Console(width=None if Console().is_terminal else 170)

    def kept(part, found):
        figures[part] = found
        if given.json:
            given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    if given.part in ("all", "match"):
        rows = match.rows(given.repeats)
        console.print(promises_table(f"The engine, {where}", rows))
        kept("match", {name: found for name, (found, _) in rows.items()})
    if given.part in ("all", "solvers"):
        rows = solvers.rows(given.repeats)
        versions = f"scipy {scipy.__version__}, {platform.machine()}, one thread"
        console.print(promises_table(f"Solvers, {versions}", rows))
        kept("solvers", {name: found for name, (found, _) in rows.items()})
    if given.part in ("all", "cells"):
        rows = cells.rows(given.repeats)
        console.print(promises_table(f"Cross-play, {where}", rows))
        kept("cells", {name: found for name, (found, _) in rows.items()})
    if given.part in ("all", "training"):
        data = models.mnist()
        if data is None:
            console.print("no MNIST files here: set ARENA_MNIST")
        else:
            n = given.images
            rows = training.measured(data[0][:n].to(device), given.repeats)
            console.print(training_table(f"Training on {n} MNIST images, {where}", rows))
            kept("training", rows)
    if given.part in ("all", "attacks"):
        attacked = []
        for name in given.models.split(","):
            with tempfile.TemporaryDirectory() as temporary:
                subject = models.subject(name, given.examples, given.folder or temporary, device)
            if subject is None:
                console.print("no MNIST files here: set ARENA_MNIST")
                break
            before = len(attacked)
            for contest in (contests[key] for key in given.only.split(",")):
                if contest.ours:
                    found = attacks.measured(subject, contest, given.repeats)
                    attacked += ({"model": name} | row for row in found)
                    kept("attacks", attacked)  # a long run that is stopped keeps what it has
            title = f"The {name} model, eps {subject.eps:g}, {given.examples} examples, {where}"
            console.print(attack_table(title, attacked[before:]))


main()
