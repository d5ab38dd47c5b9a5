"""The data and the models to compare on, made once a session."""

import models
import pytest
import torch
from published import MNIST_FOLDER

from arena.data.mnist import MNIST

TRAINED_ON = 20000


def pytest_collection_modifyitems(items):
    """Everything in this folder needs MNIST and the reference libraries."""
    absent = pytest.mark.skip(reason=f"no folder {MNIST_FOLDER}; set ARENA_MNIST")
    for item in items:
        if item.path.parent.name == "parity":
            item.add_marker(pytest.mark.mnist)
            item.add_marker(pytest.mark.peers)
            if not MNIST_FOLDER.is_dir():
                item.add_marker(absent)


@pytest.fixture(scope="session")
def digits():
    """MNIST, both halves."""
    return MNIST(str(MNIST_FOLDER)).load()


@pytest.fixture(scope="session")
def model_named(digits):
    """Makes a model by its function's name in `models`, once."""
    made = {}

    def model(name):
        if name not in made:
            with torch.random.fork_rng(devices=[]):  # a bare nn.Module draws from the global one
                made[name] = getattr(models, name)(digits[0][:TRAINED_ON])
        return made[name]

    return model
