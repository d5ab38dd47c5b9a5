"""Several processes of this machine."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from arena.executors.executor import Executor, R, T, done
from arena.fields import Count

_LOOK = 1.0  # seconds between two looks of a worker at its parent
_work: Callable[[Any], Any]


@dataclass(frozen=True)
class Processes(Executor):
    """A pool of processes, each with as many torch threads as this one.

    The workers end when this process does, even if it is killed, and at once when the results are
    no longer wanted (Ctrl-C, say); Ctrl-C itself reaches this process only.

    Attributes:
        workers: How many.
    """

    workers: Count = 2

    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields results as they finish; see `Executor.results`."""
        if not items:
            return
        import torch

        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        leash, held = context.Pipe(duplex=False)
        begin = leash, torch.get_num_threads(), _pickled(work)
        pool = ProcessPoolExecutor(min(self.workers, len(items)), context, _begin, begin)
        try:
            pickled = [_pickled(item) for item in items]
            with _sigint_blocked():
                running = {pool.submit(_do, item): n for n, item in enumerate(pickled)}
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker process was killed (for memory, perhaps: fewer workers need less); start "
                "the same command again to go on"
            ) from None
        except (KeyboardInterrupt, GeneratorExit):
            held.close()  # the workers end now, in the middle of their items
            raise
        finally:
            try:
                pool.shutdown(cancel_futures=True)
            finally:  # should the wait for the workers be interrupted, they end as well
                held.close()
                leash.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Blocks SIGINT for this thread, and for good in the processes that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pickled(value: Any) -> bytes:
    # Not by multiprocessing's own pickler: torch makes it open a file for every tensor.
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"this cannot be sent to other processes ({error}); define it in a module, or use "
            "arena.executors.executor.Serial"
        ) from None


def _begin(leash: Connection, threads: int, work: bytes) -> None:
    # First of all, since the parent may end while torch is being imported.
    threading.Thread(target=_end_with, args=(leash, os.getppid()), daemon=True).start()
    import torch

    global _work
    torch.set_num_threads(threads)
    _work = pickle.loads(work)


def _end_with(leash: Connection, parent: int) -> None:
    """Ends this process when the pool's process closes its end of the pipe, or the parent is gone.

    A killed process's end stays open in any process that it forked: hence the second look. The
    parent is the pool's process, or a server that forks for it and ends with it.
    """
    while not leash.poll(_LOOK) and os.getppid() == parent:
        pass
    os._exit(1)


def _do(item: bytes) -> Any:
    return done(_work, pickle.loads(item))
