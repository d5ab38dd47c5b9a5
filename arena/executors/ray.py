"""A Ray cluster: many machines, and workers that may die."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from arena.executors.executor import Executor, R, T, done
from arena.fields import Count, Whole


@dataclass(frozen=True)
class Ray(Executor):
    """Tasks of Ray, of one CPU each: `pip install 'arena[ray]'`.

    An item whose worker dies is begun again on another. If this process is connected to a cluster,
    that one is used as it is, and left running.

    Attributes:
        workers: CPUs of the cluster that is started on this machine if no `address` is given.
        address: The address of a running cluster; `auto` finds one that runs here.
        retries: How many times an item is begun again when its worker dies.

    Raises:
        ValueError: If Ray is not installed.
    """

    workers: Count = 2
    address: str | None = None
    retries: Whole = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if find_spec("ray") is None:
            raise ValueError("Ray is not installed; pip install 'arena[ray]'")

    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields results as they finish; see `Executor.results`."""
        if not items:
            return
        import ray

        begun = not ray.is_initialized()
        if begun:
            self._connect()
        try:
            # Workers find modules where this process finds them.
            paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            options = {"num_cpus": 1, "max_retries": self.retries}
            task = ray.remote(runtime_env={"env_vars": paths}, **options)(_do)
            shared, threads = ray.put(work), torch.get_num_threads()
            running = {task.remote(threads, shared, item): n for n, item in enumerate(items)}
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(ready), self._got(ready)
        finally:
            if begun:
                ray.shutdown()

    def _connect(self) -> None:
        import ray

        own = {"num_cpus": self.workers, "include_dashboard": False} if not self.address else {}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, **own)
        except (ConnectionError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            raise ValueError(f"no Ray cluster at address={self.address}: {why}") from None

    def _got(self, result: Any) -> Any:
        import ray

        try:
            return ray.get(result)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ChildProcessError(
                f"an item of work lost its Ray worker {self.retries + 1} times "
                f"({str(error).splitlines()[0]}); start the same command again to go on"
            ) from None


def _do(threads: int, work: Callable[[Any], Any], item: Any) -> Any:
    torch.set_num_threads(threads)
    return done(work, item)
