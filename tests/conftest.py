import warnings

import pytest
import torch

# Two cores and small models: threads cost more than they give.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _global_generator_untouched():
    """Nothing in arena may read or move torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "the global generator was moved"


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tensorboard's own imports, once, before warnings are errors
    import torch.utils.tensorboard  # noqa: F401
