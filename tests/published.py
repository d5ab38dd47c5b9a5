"""Two models as they were published, with the data they were published on, where these are at hand.

They are looked for beside the MNIST folder (`ARENA_MNIST`, or `shared/data/mnist` beside the
checkout): `models/wk_mnist.pth` of Wong & Kolter (locuslab/convex_adversarial, MIT) and
`models/resnet2b.pth` (Verified-Intelligence/alpha-beta-CROWN, BSD-3) with `cifar10/`.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from arena import Labelled
from arena.training.classifiers import ModuleClassifier

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
MNIST_FOLDER = Path(os.environ.get("ARENA_MNIST", BESIDE))
DATA = MNIST_FOLDER.parent


def there(name):
    """The path of a file of the data; the test is skipped where it is absent."""
    if not (DATA / name).is_file():
        pytest.skip(f"no file {DATA / name}")
    return DATA / name


def wong_kolter():
    """The certified MNIST network of Wong & Kolter 2018 (1711.00851)."""
    convolutions = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
    head = [nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)]
    return loaded(nn.Sequential(*convolutions, *head), "models/wk_mnist.pth")


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        same = before == after and stride == 1
        self.shortcut = nn.Sequential(*[] if same else [nn.Conv2d(before, after, 1, stride)])

    def forward(self, x):
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


class ResNet2B(nn.Module):
    """The CIFAR-10 network "resnet2b" of the verification competition."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.linear1, self.linear2 = nn.Linear(1024, 100), nn.Linear(100, 10)

    def forward(self, x):
        mean, std = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]])
        x = (x - mean[:, None, None]) / std[:, None, None]
        x = self.layer1(self.conv1(x).relu()).flatten(1)
        return self.linear2(self.linear1(x).relu())


def resnet2b():
    """The network, with its weights."""
    return loaded(ResNet2B(), "models/resnet2b.pth")


def loaded(module, name):
    """The module with the weights of a file, as a classifier of 10 classes."""
    state = torch.load(there(name), "cpu", weights_only=True)
    module.load_state_dict(state.get("state_dict", state) if isinstance(state, dict) else state)
    return ModuleClassifier(module, 10)


def cifar10():
    """The first 1,000 test images, [3, 32, 32] in [0, 1]."""
    held = np.load(there("cifar10/cifar10_test1000.npz"))
    x = torch.from_numpy(held["x"]).permute(0, 3, 1, 2).float().div(255).contiguous()
    return Labelled(x, torch.from_numpy(held["y"]).long(), 10).validated("CIFAR-10")
