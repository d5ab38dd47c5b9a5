"""Work items in, results as they finish: the same from all executors, and when workers die."""

import os
import signal
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from arena.executors.executor import Serial
from arena.executors.processes import Processes
from arena.executors.ray import Ray

RAY = (
    pytest.mark.peers,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    # Ray's own code opens files and leaves them to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
)


def with_ray(test):
    """A test that needs Ray."""
    for mark in RAY:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two workers, for all tests here."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=["serial", "processes", pytest.param("ray", marks=RAY)])
def executor(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
        return Ray()
    return {"serial": Serial(), "processes": Processes(2)}[request.param]


@dataclass(frozen=True)
class Scaled:
    """Work that carries something of its own."""

    by: torch.Tensor

    def __call__(self, item):
        if item == 13:
            raise ValueError("unlucky")
        return item * self.by, torch.get_num_threads()


def test_every_item_has_its_result(executor):
    items = [3, 1, 4, 1, 5]
    found = dict(executor.results(Scaled(torch.tensor(2)), items))
    assert sorted(found) == [0, 1, 2, 3, 4]
    for number, (value, threads) in found.items():
        assert value == 2 * items[number] and threads == torch.get_num_threads()


def test_nothing_to_do_is_nothing_done(executor):
    assert list(executor.results(Scaled(torch.tensor(2)), [])) == []


def test_what_work_raises_is_raised(executor):
    with pytest.raises(ValueError, match="unlucky"):
        list(executor.results(Scaled(torch.tensor(2)), [1, 13]))


@dataclass(frozen=True)
class Mortal:
    """Is killed over item 1 as often as there are lives; each death leaves a file."""

    folder: Path
    lives: int

    def __call__(self, item):
        deaths = len(list(self.folder.iterdir()))
        if item == 1 and deaths < self.lives:
            (self.folder / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item


@with_ray
def test_ray_begins_the_item_of_a_killed_worker_again(tmp_path, cluster):
    found = dict(Ray(retries=2).results(Mortal(tmp_path, lives=2), [0, 1, 2]))
    assert found == {0: 0, 1: 1, 2: 2}
    assert len(list(tmp_path.iterdir())) == 2


@with_ray
def test_ray_gives_up_on_an_item_that_kills_every_worker(tmp_path, cluster):
    with pytest.raises(ChildProcessError, match="lost its Ray worker 2 times"):
        list(Ray(retries=1).results(Mortal(tmp_path, lives=9), [1]))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_is_reported(tmp_path):
    with pytest.raises(ChildProcessError, match="start the same command again"):
        list(Processes(1).results(Mortal(tmp_path, lives=1), [1]))
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match="cannot be sent to other processes"):
        list(Processes(1).results(lambda item: item, [1]))


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_says_how_it_is_had():
    with pytest.raises(ValueError, match=r"pip install 'arena\[ray\]'"):
        Ray()
