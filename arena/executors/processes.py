"""Several processes of this machine."""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from arena.executors.executor import Executor, R, T
from arena.fields import Count

_work: Callable[[Any], Any]


@dataclass(frozen=True)
class Processes(Executor):
    """A pool of processes with as many of torch's threads as this one.

    Attributes:
        workers: How many.
    """

    workers: Count = 2

    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields results as they finish; see `Executor.results`."""
        if not items:
            return
        begin = torch.get_num_threads(), _pickled(work)
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        pool = ProcessPoolExecutor(min(self.workers, len(items)), context, _begin, begin)
        try:
            running = {pool.submit(_do, _pickled(item)): n for n, item in enumerate(items)}
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker process was killed (for memory, perhaps: fewer workers need less); start "
                "the same command again to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _pickled(value: Any) -> bytes:
    # Not by multiprocessing's own pickler: torch makes it open a file for every tensor.
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"this cannot be sent to other processes ({error}); define it in a module, or use "
            "arena.executors.executor.Serial"
        ) from None


def _begin(threads: int, work: bytes) -> None:
    global _work
    torch.set_num_threads(threads)
    _work = pickle.loads(work)


def _do(item: bytes) -> Any:
    return _work(pickle.loads(item))
