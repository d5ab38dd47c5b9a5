"""Work items in, results as they finish: the same from all executors, and when workers die."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from arena.executors.executor import Exited, Serial
from arena.executors.processes import Processes
from arena.executors.ray import Ray

SPAWN = multiprocessing.get_context("spawn")
RAY = (
    pytest.mark.peers,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    # Ray's own code opens files and leaves them to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
)


@pytest.fixture
def new_processes(monkeypatch):
    """Workers are new processes, as a user's are, and not forked as in other tests."""
    monkeypatch.setattr(multiprocessing, "get_context", {"spawn": SPAWN}.get)


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


def test_every_item_has_its_result(executor, new_processes):
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


def exits(item):
    """Work that would end its process."""
    sys.exit(f"enough of {item}")


def test_work_that_exits_is_an_error_with_its_place(executor):
    with pytest.raises(
        Exited, match=r"sys.exit\('enough of 1'\) was called in .*test_executors.py"
    ):
        list(executor.results(exits, [1]))


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


POOL = """
import os, sys, time
from pathlib import Path
from arena.executors.processes import Processes

def work(item):
    Path(sys.argv[1], f"{item}.tmp").write_text(str(os.getpid()))
    os.replace(Path(sys.argv[1], f"{item}.tmp"), Path(sys.argv[1], f"{item}.pid"))
    time.sleep(600)

if __name__ == "__main__":
    try:
        list(Processes(1).results(work, [0, 1]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def pool(tmp_path):
    """A process with a busy worker, in a session of their own: the process, the worker's pid."""
    (tmp_path / "pool.py").write_text(POOL)
    (tmp_path / "pids").mkdir()
    command = [sys.executable, tmp_path / "pool.py", tmp_path / "pids"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        pid = tmp_path / "pids" / "0.pid"
        assert soon(pid.exists, 120)
        yield process, int(pid.read_text())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def soon(fact, seconds):
    """Whether the fact becomes true in that time."""
    end = time.monotonic() + seconds
    while not (found := fact()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def running(pid):
    """Whether a process runs; one that has ended and waits to be asked for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")


@LINUX
def test_a_worker_ends_with_a_parent_that_is_killed(pool):
    process, worker = pool
    assert running(worker)
    process.kill()
    assert soon(lambda: not running(worker), 5)


@LINUX
def test_a_worker_ends_with_a_parent_whose_end_of_the_pipe_lives_on(pool):
    process, worker = pool
    kept = list(kept_open(Path(f"/proc/{process.pid}/fd")))
    assert kept
    process.kill()
    assert soon(lambda: not running(worker), 5)
    for each in kept:
        os.close(each)


def kept_open(fds):
    """Opens the ends for writing of all pipes of a process once more."""
    for fd in fds.iterdir():
        flags = (fds.parent / "fdinfo" / fd.name).read_text().split("flags:")[1].split()[0]
        if os.readlink(fd).startswith("pipe:") and int(flags, 8) & os.O_ACCMODE == os.O_WRONLY:
            with contextlib.suppress(OSError):  # nobody reads from it
                yield os.open(fd, os.O_WRONLY | os.O_NONBLOCK)


@LINUX
def test_ctrl_c_ends_a_worker_at_once_and_without_a_word(pool):
    process, worker = pool
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    assert soon(lambda: process.poll() is not None, 20)
    assert process.returncode == 130
    assert process.stderr.read() == ""
    assert not running(worker)


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match="cannot be sent to other processes"):
        list(Processes(1).results(lambda item: item, [1]))


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_says_how_it_is_had():
    with pytest.raises(ValueError, match=r"pip install 'arena\[ray\]'"):
        Ray()
