"""Which options of an attack come nearest, on training images that the models have not seen.

    PYTHONPATH=tests python tests/parity/options.py FMN l0 step=1,2 gamma=0.05,0.2

prints, for each model and each combination, the median and the mean size of the nearest mistakes
and for how many images none was found.

    PYTHONPATH=tests python tests/parity/options.py APGDL1 l1 objective=dlr targets=5 --eps 12

prints the robust accuracy that is left within eps instead, in each of so many `--seeds`.
"""

import argparse
from ast import literal_eval
from dataclasses import replace
from itertools import product

import models
import torch
from conftest import TRAINED_ON
from published import MNIST_FOLDER
from referee import distances, nearest, ours, robust

from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.apgd_l1 import APGDL1
from arena.attacks.ddn import DDN
from arena.attacks.fmn import FMN
from arena.attacks.square import Square
from arena.data.mnist import MNIST

ATTACKS = {"FMN": FMN, "DDN": DDN, "APGDL1": APGDL1, "Square": Square}
SPACES = {"l0": L0(0), "l1": L1(0.0), "l2": L2(0.0), "linf": Linf(0.0)}


def value(text):
    """A number, or a word."""
    try:
        return literal_eval(text)
    except ValueError:
        return text


def main():
    """Reads the command line and prints a line a combination."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("space", choices=SPACES)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE,VALUE")
    parser.add_argument("--examples", type=int, default=150)
    parser.add_argument("--eps", type=float, help="a ball's radius, for attacks within it")
    parser.add_argument("--seeds", type=int, default=1, help="within a ball: how many to try")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    attack, space = ATTACKS[asked.attack], SPACES[asked.space]
    train = MNIST(str(MNIST_FOLDER)).load()[0]
    data = train[TRAINED_ON : TRAINED_ON + asked.examples]
    values = dict(option.split("=") for option in asked.options)
    for name in ("plain", "hardened"):
        torch.manual_seed(0)
        model = getattr(models, name)(train[:TRAINED_ON])
        for chosen in product(*(map(value, listed.split(",")) for listed in values.values())):
            options = dict(zip(values, chosen, strict=True))
            if asked.eps is None:
                found = sizes(attack(**options), model, data, space)
            else:
                ball = replace(space, eps=asked.eps)
                found = left(attack(**options), model, data, ball, asked.seeds)
            print(f"{name} {options}: {found}", flush=True)


def sizes(attack, model, data, space):
    """How far the nearest mistakes are, in words."""
    size = distances(model, data, nearest(attack, model, data, space), space)
    found = size[size.isfinite()]
    return (
        f"median {float(size.median()):.4f}, mean {float(found.mean()):.4f}, "
        f"failed {int(size.isinf().sum())}"
    )


def left(attack, model, data, space, seeds):
    """The robust accuracy in each seed, in words."""
    found = (ours(attack, model, data, space, seed=seed) for seed in range(seeds))
    return "left " + ", ".join(f"{robust(model, data, x, space):.4f}" for x in found)


if __name__ == "__main__":
    main()
