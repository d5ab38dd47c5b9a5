"""Runs of `arena` that are killed (SIGKILL) as they write files, and started again."""

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path


def kill_and_start_again(folder, moments, *arguments):
    """Kills a run at each of these moments and starts it again; then does one unbroken run.

    A file is written in three moments: torn, whole, in its place. Of each moment N, `at-N.killed`
    is what was left and `at-N` how it ended; beside them is `unbroken`.

    Args:
        folder: In which the runs get a folder each.
        moments: Counted from 1, separated by commas; "all" goes on until there is no such moment.
        arguments: Of `arena`.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_runs, args=(folder, moments, arguments)
    )
    process.start()
    process.join()
    assert process.exitcode == 0


def _runs(folder, moments, arguments):
    os.chdir(folder)
    for kill_at in itertools.count(1) if moments == "all" else map(int, moments.split(",")):
        run = Path(f"at-{kill_at}")
        if _run(run, kill_at, arguments) == 0:
            break
        shutil.copytree(run, f"{run}.killed")
        assert _run(run, None, arguments) == 0
    assert _run(Path("unbroken"), None, arguments) == 0


def _run(folder, kill_at, arguments):
    """The exit status of a run, in a fork of this process; below 0 if it was killed."""
    if (pid := os.fork()) != 0:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    moments = 0
    whole = {}  # by file, how much of it was written to the end: the rest may be torn

    def moment(torn=None):
        nonlocal moments
        moments += 1
        if moments == kill_at:
            if torn is not None:
                status = os.fstat(torn)
                os.ftruncate(torn, (whole.get(status.st_ino, 0) + status.st_size) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(file, real=os.fsync):
        moment(torn=file)
        real(file)
        whole[os.fstat(file).st_ino] = os.fstat(file).st_size
        moment()

    def replace(*paths, real=os.replace):
        real(*paths)
        moment()

    os.fsync, os.replace = fsync, replace
    try:
        from arena.__main__ import main

        with open(f"{folder}.out", "a") as out:
            os.dup2(out.fileno(), 1)
        sys.argv = ["arena", *arguments, f"hydra.run.dir={folder}"]
        main()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
