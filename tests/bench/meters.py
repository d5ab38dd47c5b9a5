"""What is measured of a run: seconds, passes, waits for the device, memory."""

import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def seconds(run, device):
    """CPU seconds of this process; on CUDA, where the CPU mostly waits, wall seconds."""
    if device.type != "cuda":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


@dataclass
class Use:
    """What a run used.

    Attributes:
        forwards, gradients: Rows that went forward through the module, and that came back.
        waits: How often the host waited for the device; None on a CPU.
        memory: MiB that torch had allocated at most, beyond what it had before. None on a CPU,
            where its allocator keeps no peak, and the process's own is that of its imports too.
    """

    forwards: int = 0
    gradients: int = 0
    waits: int | None = None
    memory: float | None = None


@contextmanager
def observed(module, device):
    """Yields what is used inside, known at the end; passes are those through `module`."""
    use = Use()

    def back(gradient):
        use.gradients += len(gradient)

    def ahead(layer, inputs, logits):
        use.forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(back)

    *_, last = module.modules()  # ART calls the layers of a Sequential one by one
    hook = last.register_forward_hook(ahead)
    try:
        with on_cuda(use, device) if device.type == "cuda" else warnings.catch_warnings():
            yield use
    finally:
        hook.remove()


@contextmanager
def on_cuda(use, device):
    """Fills in `waits` and `memory`."""
    before, mode = torch.cuda.memory_allocated(device), torch.cuda.get_sync_debug_mode()
    torch.cuda.reset_peak_memory_stats(device)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    use.waits = sum("synchronizing CUDA operation" in str(one.message) for one in said)
    use.memory = (torch.cuda.max_memory_allocated(device) - before) / 2**20
