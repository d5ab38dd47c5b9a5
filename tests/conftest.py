import os

# Two cores and small models: threads cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"

import multiprocessing
import sys
import warnings
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The same examples on every run, and no test that fails because a machine is slow.
settings.register_profile("arena", deadline=None, derandomize=True)
settings.load_profile("arena")


# What players, studies and their records import, by way of the largest; no backward pass, after
# which a fork may not do another.
IMPORTED = [
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "pytest"),
    *("safetensors.torch", "sklearn.datasets", "torch._dynamo", "torch.utils.tensorboard"),
    *("arena.__main__", "arena.attacks.pgd", "arena.data.digits", "arena.defenses.retrain"),
    *("arena.events", "arena.games.evasion", "arena.studies.double_oracle"),
    *("arena.studies.match", "arena.studies.payoffs", "arena.studies.who_moves_first"),
]


@pytest.fixture(scope="session", autouse=True)
def _worker_processes_are_forked():
    """From one process that has imported the above, where arena asks for new ones ("spawn").

    A new process imports for 4 seconds before its work, which may take a hundredth of that.
    `test_every_item_has_its_result` has new ones.
    """
    new = multiprocessing.get_context

    def forked(method=None):
        return new("forkserver" if method == "spawn" else method)

    multiprocessing.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", forked)
        yield


@pytest.fixture(autouse=True)
def _global_generator_untouched():
    """Nothing in arena may read or move torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "the global generator was moved"


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tensorboard's own imports, once, before warnings are errors
    import torch.utils.tensorboard


@dataclass
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def shell(monkeypatch, capfd, tmp_path):
    """Runs `arena ARGUMENTS` in this process, in an empty folder."""
    from arena.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # so that what main sets is undone
    monkeypatch.setenv("ARENA_SWEEP", "")
    monkeypatch.delenv("ARENA_TRACEBACK", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["arena", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        return Said(code, *capfd.readouterr())

    return run
