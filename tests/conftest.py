import sys
import warnings
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings

# Two cores and small models: threads cost more than they give.
torch.set_num_threads(1)

# The same examples on every run, and no test that fails because a machine is slow.
settings.register_profile("arena", deadline=None, derandomize=True)
settings.load_profile("arena")


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
