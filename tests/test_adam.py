"""Adam for many walks at once is torch's, walk by walk."""

import torch

from arena.attacks.engines.adam import Adam


def reference(gradients):
    """The steps [T, n] of `torch.optim.Adam` for these gradients [T, n]."""
    x = torch.zeros_like(gradients[0])
    optimizer, steps = torch.optim.Adam([x], lr=1.0), []
    for gradient in gradients:
        before = x.clone()
        x.grad = gradient
        optimizer.step()
        steps.append(before - x)
    return torch.stack(steps)


def test_each_walk_is_stepped_as_by_torch_whenever_it_began():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(12, 3, 5, generator=generator) * torch.tensor([1e-6, 1.0, 1e3])[:, None]
    adam = Adam.at(torch.zeros(2, 5))
    found = [adam.direction(gradients[t, :2], torch.tensor([t + 1])) for t in range(4)]
    # The first walk leaves, and another begins behind the second.
    adam = adam[torch.tensor([1])].joined(Adam.at(torch.zeros(1, 5)))
    later = [
        adam.direction(gradients[t, 1:], torch.tensor([t + 1, t - 3]))
        for t in range(4, len(gradients))
    ]
    first = torch.stack([step[0] for step in found])
    second = torch.stack([step[1] for step in found] + [step[0] for step in later])
    third = torch.stack([step[1] for step in later])
    torch.testing.assert_close(first, reference(gradients[:4, 0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, reference(gradients[:, 1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(third, reference(gradients[4:, 2]), rtol=1e-4, atol=1e-5)
