"""Models with published figures: ours are on the right side of every one of them.

`pytest tests/test_published.py -s` prints what was reached.
"""

import pytest
import torch
from linear import turn_of
from published import MNIST_FOLDER, cifar10, resnet2b, wong_kolter

from arena.actions.lp import Linf
from arena.attacks.apgd import APGD
from arena.attacks.fgsm import FGSM
from arena.attacks.pgd import PGD
from arena.attacks.worst_case import WorstCase
from arena.data.mnist import MNIST

pytestmark = [
    pytest.mark.mnist,
    pytest.mark.slow,
    pytest.mark.skipif(not MNIST_FOLDER.is_dir(), reason=f"no folder {MNIST_FOLDER}"),
]

PGD_40 = PGD(40, 0.1, restarts=3)
STRONGER = WorstCase(
    (PGD(10, 0.25), APGD(40, objective="margin"), APGD(40, objective="dlr", targets=2))
)


@pytest.fixture
def model(request):
    with torch.random.fork_rng(devices=[]):  # a bare nn.Module draws from the global generator
        return request.param()


def error(model, data, strategy, eps):
    """The share of mistakes, in percent, that a strategy finds within L-inf eps."""
    turn, _ = turn_of(strategy, Linf(eps), model.module, data, rows=1024, closing=True)
    x = strategy.respond(turn)
    assert Linf(eps).contains(data.x, x).all()
    wrong = torch.cat([model.labels(part) for part in x.split(1000)]) != data.y
    found = round(100 * float(wrong.double().mean()), 2)
    print(f"{type(strategy).__name__} at L-inf {eps:.4g}: error {found:.2f} %")
    return found


@pytest.mark.parametrize("model", [wong_kolter], indirect=True)
def test_wong_and_kolters_network(model):
    """1711.00851, table 2 and the published weights: all of MNIST's test images at 0.1."""
    data = MNIST(str(MNIST_FOLDER)).load()[1]
    assert error(model, data, FGSM(), 0.0) == pytest.approx(1.80, abs=0.005)
    assert error(model, data, FGSM(), 0.1) == pytest.approx(3.9, abs=0.05)
    pgd, worst = error(model, data, PGD_40, 0.1), error(model, data, STRONGER, 0.1)
    assert 4.06 <= pgd <= worst <= 5.8, "the last is the certificate"


@pytest.mark.parametrize("model", [resnet2b], indirect=True)
def test_resnet2b(model):
    """At 2/255 on 1,000 images; published on all 10,000: PGD 54.82 %, verified 26.88 % right."""
    data, eps = cifar10(), 2 / 255
    clean = error(model, data, FGSM(), 0.0)
    pgd, worst = error(model, data, PGD_40, eps), error(model, data, STRONGER, eps)
    sampling = 3 * 100 * (0.25 / len(data)) ** 0.5  # three standard errors of 1,000 of 10,000
    assert clean == pytest.approx(100 - 69.25, abs=sampling)
    assert clean < pgd <= worst
    assert 100 - 54.82 - sampling <= worst <= 100 - 26.88 + sampling
