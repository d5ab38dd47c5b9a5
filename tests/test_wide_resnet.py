"""The wide residual network is the paper's."""

import pytest
import torch

from arena.learners.wide_resnet import WideResNet


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_depth_counts_the_layers_and_width_the_channels(depth, width):
    module = WideResNet(depth, width).build((3, 8, 8), 5, seed=0).eval()
    convolutions = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d)]
    shortcuts = [part for part in convolutions if part.kernel_size == (1, 1)]
    # The paper's count: 3 x 3 convolutions, the linear layer and the shortcuts of the groups.
    wide = 3 if width > 1 else 2
    assert len(shortcuts) == wide
    assert len(convolutions) - wide == depth - 3
    assert convolutions[-1].out_channels == 64 * width
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_wrn_28_10_has_the_papers_36_5_million_parameters():
    with torch.device("meta"):
        module = WideResNet(28, 10).layers((3, 32, 32), 10)
    assert sum(part.numel() for part in module.parameters()) == 36_479_194


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="6 n \\+ 4"):
        WideResNet(12, 1)
    with pytest.raises(ValueError, match="images"):
        WideResNet(10, 1).build((64,), 10, seed=0)
