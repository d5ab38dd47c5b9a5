"""Which options of an attack come nearest, on training images that the models have not seen.

    PYTHONPATH=tests python tests/parity/options.py FMN l0 step=1,2 gamma=0.05,0.2

prints, for each model and each combination, the median and the mean size of the nearest mistakes
and for how many images none was found.
"""

import argparse
from itertools import product

import models
import torch
from conftest import TRAINED_ON
from published import MNIST_FOLDER
from referee import distances, nearest

from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.ddn import DDN
from arena.attacks.fmn import FMN
from arena.data.mnist import MNIST

ATTACKS = {"FMN": FMN, "DDN": DDN}
SPACES = {"l0": L0(0), "l1": L1(0.0), "l2": L2(0.0), "linf": Linf(0.0)}


def main():
    """Reads the command line and prints a line a combination."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("space", choices=SPACES)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE,VALUE")
    parser.add_argument("--examples", type=int, default=150)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    attack, space = ATTACKS[asked.attack], SPACES[asked.space]
    train = MNIST(str(MNIST_FOLDER)).load()[0]
    data = train[TRAINED_ON : TRAINED_ON + asked.examples]
    values = dict(option.split("=") for option in asked.options)
    for name in ("plain", "hardened"):
        torch.manual_seed(0)
        model = getattr(models, name)(train[:TRAINED_ON])
        for chosen in product(*(map(float, listed.split(",")) for listed in values.values())):
            options = dict(zip(values, chosen, strict=True))
            size = distances(model, data, nearest(attack(**options), model, data, space), space)
            found = size[size.isfinite()]
            print(
                f"{name} {options}: median {float(size.median()):.4f}, "
                f"mean {float(found.mean()):.4f}, failed {int(size.isinf().sum())}",
                flush=True,
            )


if __name__ == "__main__":
    main()
