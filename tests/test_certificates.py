"""Certificates: below every legal move's margin, exact where that can be known, refused else."""

import copy
import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from arena import chance
from arena.actions.lp import L0, L1, L2, Linf
from arena.certificates.crown import Crown
from arena.certificates.interval import Interval
from arena.certificates.network import read
from arena.certificates.polytope import ConvexPolytope
from arena.learners.networks import CNN, MLP
from arena.learners.preprocessing import Preprocessed
from arena.learners.wide_resnet import WideResNet
from arena.transformations.bit_depth import BitDepth
from arena.transformations.gaussian_noise import GaussianNoise

BOUNDS = [Interval(), Crown("interval"), Crown("crown"), ConvexPolytope()]
SPACES = [Linf(0.08), L2(0.4), L1(0.9)]
IMAGE = (2, 6, 6)

each_bound = pytest.mark.parametrize("bound", BOUNDS, ids=str)
each_space = pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)


def uniform(shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make, seed=0):
    """A frozen module in evaluation mode; a bare one draws from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().eval().requires_grad_(False)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2.0)
                part.weight.uniform_(-1.5, 1.5)
                part.bias.uniform_(-0.5, 0.5)
    return module


def margins_of(module, x, y):
    logits = module(x)
    margin = logits.gather(1, y[:, None]) - logits
    return margin.scatter(1, y[:, None], math.inf)


# --- networks of every kind -----------------------------------------------------------------


class Residual(nn.Module):
    """Normalised inputs, a sum that is read twice, and means of windows and of the plane."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.beside = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.shortcut = nn.Conv2d(3, 3, 1)
        self.last = nn.Linear(3, 4)

    def forward(self, x):
        x = (x - torch.tensor([0.4, 0.5])[:, None, None]) / torch.tensor([0.2, 0.3])[:, None, None]
        x = self.norm(self.first(x)).relu()
        x = torch.relu(self.shortcut(x) - 0.5 * self.beside(x))
        z = 1.0 - x.clamp(min=0)
        z += 2.0 * x
        return self.last(nn.functional.avg_pool2d(z + self.beside(x), 2).relu().mean((2, 3)))


NETWORKS = {
    "linear": lambda: MLP(()).layers(IMAGE, 4),
    "mlp": lambda: MLP((12, 9)).layers(IMAGE, 4),
    "cnn": lambda: CNN((3, 4), 7).layers(IMAGE, 4),
    "wide_resnet": lambda: WideResNet(10, 1).layers(IMAGE, 4),
    "residual": Residual,
    "pool_of_signed": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.MaxPool2d(2, stride=1, padding=1),
        nn.Conv2d(3, 2, 2, dilation=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8, 4),
    ),
    "norm_1d": lambda: nn.Sequential(
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.Dropout(),
        nn.ReLU(),
        nn.Linear(8, 4),
    ),
    "adaptive": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(1), nn.Linear(16, 4)
    ),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


@each_network
def test_a_network_read_is_the_network(name):
    module, x = seeded(NETWORKS[name]), uniform((5, *IMAGE), 1)
    torch.testing.assert_close(read(module, x)(x), module(x), rtol=1e-5, atol=1e-5)


@each_network
@each_bound
def test_without_a_radius_the_bounds_are_the_margins(name, bound):
    module, x = seeded(NETWORKS[name]), uniform((6, *IMAGE), 1)
    y = module(x).argmax(1)
    y[:2] = torch.tensor([0, 3])
    found = bound.margins(module, x, y, Linf(0.0))
    torch.testing.assert_close(found, margins_of(module, x, y), rtol=1e-4, atol=1e-4)


def worst_found(module, x, y, space, tries=40, steps=25):
    """The least margins [B, K] of random legal outputs and of descents on each margin."""
    worst = margins_of(module, x, y)
    points = [space.sample(x, chance.keys(k, len(x))) for k in range(tries)]
    k = worst.shape[1]
    for other in range(k):
        z = points[other]
        for _ in range(steps):
            z = z.detach().requires_grad_()
            logits = module(z)
            loss = (logits[:, other] - logits.gather(1, y[:, None])[:, 0]).sum()
            (gradient,) = torch.autograd.grad(loss, z)
            z = space.project(x, z + 0.3 * space.eps * space.steepest(gradient)).detach()
            points.append(z)
    for z in points:
        assert space.contains(x, z).all()
        worst = worst.minimum(margins_of(module, z, y))
    return worst


@each_network
@each_space
def test_no_legal_output_is_below_a_bound(name, space):
    module, x = seeded(NETWORKS[name]), uniform((4, *IMAGE), 1)
    y = module(x).argmax(1)
    worst = worst_found(module, x, y, space)
    for bound in BOUNDS:
        found = bound.margins(module, x, y, space)
        assert (found <= worst + 1e-4).all(), bound
        assert (found == math.inf).sum() == len(x)


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 7), max_size=3),
    st.sampled_from([Linf, L2, L1]),
    st.floats(0.0, 1.5),
    st.integers(2, 4),
)
def test_random_perceptrons_keep_what_their_bounds_promise(seed, hidden, geometry, eps, classes):
    module = seeded(lambda: MLP(tuple(hidden)).layers((3,), classes), seed)
    x, y = uniform((5, 3), seed), torch.arange(5) % classes
    space = geometry(eps)
    worst = worst_found(module, x, y, space, tries=20, steps=5)
    for bound in BOUNDS:
        assert (bound.margins(module, x, y, space) <= worst + 1e-5).all(), bound


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.1, 0.4]))
def test_bounds_that_contain_others_are_no_better(seed, eps):
    module = seeded(lambda: CNN((3,), 6).layers((1, 4, 4), 3), seed)
    x, y = uniform((4, 1, 4, 4), seed), torch.arange(4) % 3
    space = Linf(eps)
    interval = Interval().margins(module, x, y, space)
    for crown in (Crown("interval"), Crown("crown")):
        assert (interval <= crown.margins(module, x, y, space) + 1e-5).all()
    larger = Interval().margins(module, x, y, replace(space, eps=1.5 * eps))
    assert (larger <= interval + 1e-5).all(), "a larger space allows more"


# --- closed forms ---------------------------------------------------------------------------


@each_bound
@each_space
def test_on_a_linear_model_the_bound_is_the_dual_norm(bound, space):
    module = seeded(lambda: MLP(()).layers((5,), 3))
    x, y = 0.5 + 0.0 * uniform((4, 5)), torch.arange(4) % 3  # far from the box
    space = replace(space, eps=0.3)
    weight = module[1].weight
    steepness = weight[y][:, None] - weight[None]
    dual = {Linf: 1, L2: 2, L1: math.inf}[type(space)]
    norm = torch.linalg.vector_norm(steepness, dual, dim=2)
    found = bound.margins(module, x, y, space)
    torch.testing.assert_close(found, margins_of(module, x, y) - 0.3 * norm, rtol=2e-5, atol=1e-5)


@each_bound
def test_on_a_linear_model_the_box_counts(bound):
    module = seeded(lambda: MLP(()).layers((5,), 3))
    x, y, eps = uniform((6, 5), 3), torch.arange(6) % 3, 0.3
    lower, upper = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    steepness = module[1].weight[y][:, None] - module[1].weight[None]
    ends = torch.where(steepness > 0, lower[:, None], upper[:, None])
    bias = module[1].bias[y][:, None] - module[1].bias
    expected = ((steepness * ends).sum(2) + bias).scatter(1, y[:, None], math.inf)
    torch.testing.assert_close(
        bound.margins(module, x, y, Linf(eps)), expected, rtol=2e-5, atol=1e-5
    )
    for other in (L2(50.0), L1(50.0)):  # every value may go anywhere in the box
        whole = bound.margins(module, x, y, Linf(1.0))
        torch.testing.assert_close(bound.margins(module, x, y, other), whole)


@each_bound
def test_a_box_of_another_size(bound):
    module = seeded(lambda: MLP((4,)).layers((3,), 2))
    x, y = uniform((5, 3)), torch.zeros(5, dtype=torch.long)
    scaled = seeded(lambda: MLP((4,)).layers((3,), 2))
    scaled[1].weight /= 10
    found = bound.margins(scaled, 10 * x - 5, y, Linf(1.0, (-5.0, 5.0)))
    scaled_bias = scaled[1].weight.sum(1) * 5
    module[1].bias -= scaled_bias
    torch.testing.assert_close(found, bound.margins(module, x, y, Linf(0.1)), rtol=1e-4, atol=1e-5)


def exact_margins(module, x, y, lower, upper):
    """The least margins [K] for one input of a net of one layer: an LP a pattern of its ReLUs."""
    (w, b), (v, c) = ((m.weight.double().numpy(), m.bias.double().numpy()) for m in module[1::2])
    box = list(zip(lower.tolist(), upper.tolist(), strict=True))
    least = torch.full((len(c),), math.inf, dtype=torch.double)
    for other in range(len(c)):
        if other == int(y):
            continue
        for signs in product((0.0, 1.0), repeat=len(b)):
            on = torch.tensor(signs).double().numpy()
            slope = (v[int(y)] - v[other]) * on
            side = 1 - 2 * on  # w x + b >= 0 where on, <= 0 else
            part = linprog(slope @ w, A_ub=side[:, None] * w, b_ub=-side * b, bounds=box)
            if part.status == 0:
                value = part.fun + slope @ b + c[int(y)] - c[other]
                least[other] = min(float(least[other]), value)
    return least.float()


@pytest.mark.parametrize("seed", range(6))
def test_bounds_stay_below_the_exact_minimum_and_meet_it_where_no_sign_is_open(seed):
    """A net of 4 ReLUs in 2-D, solved exactly."""
    module = seeded(lambda: MLP((4,)).layers((2,), 3), seed)
    x, y = uniform((1, 2), seed), torch.tensor([seed % 3])
    for eps in (0.02, 0.1, 0.5):
        lower, upper = (x[0] - eps).clamp(0, 1), (x[0] + eps).clamp(0, 1)
        exact = exact_margins(module, x, y, lower, upper)
        signs = [(module[1](z) > 0)[0].tolist() for z in corners(lower, upper)]
        for bound in BOUNDS:
            found = bound.margins(module, x, y, Linf(eps))[0]
            assert (found <= exact + 2e-5).all()
            # Linear on the ball: what intervals lose is the dependence between values.
            if bound != Interval() and all(s == signs[0] for s in signs):
                torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def corners(lower, upper):
    return [torch.stack(corner)[None] for corner in product(*zip(lower, upper, strict=True))]


def test_one_relu_by_hand():
    """relu(z) - 0.9 z over [-1, 2] is at least 0; its lines below have slopes 1 and 2/3."""
    module = MLP((2,)).build((1,), 2, 0).requires_grad_(False)
    module[1].weight.fill_(1.0)
    module[1].bias.copy_(torch.tensor([0.0, 10.0]))  # the second, z + 10, is always on
    module[3].weight.copy_(torch.tensor([[1.0, -0.9], [0.0, 0.0]]))
    module[3].bias.copy_(torch.tensor([9.0, 0.0]))
    x, y, space = torch.tensor([[0.5]]), torch.tensor([0]), Linf(1.5, (-1.0, 2.0))

    def found(bound):
        return float(bound.margins(module, x, y, space)[0, 1])

    assert found(Interval()) == pytest.approx(0 - 0.9 * 12 + 9, abs=1e-4)
    assert found(Crown()) == pytest.approx(-1 + 0.9, abs=1e-4)  # z - 0.9 z at z = -1
    assert found(ConvexPolytope()) == pytest.approx((2 / 3 - 0.9) * 2, abs=1e-4)
    module[3].weight.copy_(torch.tensor([[-1.0, 0.9], [0.0, 0.0]]))
    for bound in (Crown(), ConvexPolytope()):  # the chord: -2/3 (z + 1) + 0.9 z at z = -1
        assert found(bound) == pytest.approx(0.9 * 9 - 0 + 9, abs=1e-4)


class Pool(nn.Module):
    """Logits (sign max(p, q) + beside p, 0)."""

    def __init__(self, sign, beside):
        super().__init__()
        self.pool = nn.MaxPool2d((1, 2))
        self.of_max, self.of_both = torch.tensor([[sign], [0.0]]), torch.zeros(2, 2)
        self.of_both[0, 0] = beside

    def forward(self, x):
        pooled = nn.functional.linear(self.pool(x).flatten(1), self.of_max)
        return pooled + nn.functional.linear(x.flatten(1), self.of_both)


def test_a_pool_by_hand():
    """For p in [-0.35, 1], q in [-1, 0.5]: p <= max(p, q) <= 0.5 + (0.5 / 1.35) (p + 0.35)."""
    x, y, space = torch.tensor([[[[0.4, -0.25]]]]), torch.tensor([0]), Linf(0.75, (-1.0, 1.0))

    def found(bound, *module):
        return float(bound.margins(Pool(*module), x, y, space)[0, 1])

    for bound in BOUNDS:
        assert found(bound, 1.0, 0.0) == pytest.approx(-0.35, abs=1e-4)
        assert found(bound, -1.0, 0.0) == pytest.approx(-1.0, abs=1e-4)
    assert found(Interval(), -1.0, 1.0) == pytest.approx(-1 - 0.35, abs=1e-4)
    for bound in (Crown(), ConvexPolytope()):  # exact: p = -0.35, q = 0.5
        assert found(bound, -1.0, 1.0) == pytest.approx(-0.35 - 0.5, abs=1e-4)


# --- what is covered, and what is refused ---------------------------------------------------


@each_bound
@each_space
def test_a_certificate_covers_what_the_space_tolerates(bound, space):
    """The farthest output that `contains` accepts, in the steepest direction."""
    module = seeded(lambda: MLP(()).layers((1,), 2))
    module[1].weight.copy_(torch.tensor([[1000.0], [0.0]]))
    space = replace(space, eps=0.3)
    x, y = torch.full((1, 1), 0.5), torch.tensor([0])
    z = (x - space.eps * (1 - space.tolerance)).clone()
    while bool(space.contains(x, z.nextafter(torch.tensor(-9.0)))):
        z = z.nextafter(torch.tensor(-9.0))
    found = bound.margins(module, x, y, space).double()
    assert float(x - z) > space.eps
    exact = 1000 * z.double() + (module[1].bias[0] - module[1].bias[1]).double()
    assert float(found[0, 1]) <= float(exact) + 1e-4


@each_bound
def test_bounds_depend_on_no_other_example(bound):
    module, x = seeded(NETWORKS["cnn"]), uniform((7, *IMAGE), 1)
    y = module(x).argmax(1)
    together = bound.margins(module, x, y, Linf(0.05))
    for i in range(7):
        alone = bound.margins(module, x[i : i + 1], y[i : i + 1], Linf(0.05))[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-5)


@each_bound
def test_certified_is_a_positive_margin_in_batches_of_any_size(bound):
    module, x = seeded(NETWORKS["mlp"]), uniform((9, *IMAGE), 1)
    y = module(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    space = Linf(0.004)
    found = bound.certified(module, x, y, space, batch_size=4)
    assert torch.equal(found, bound.certified(module, x, y, space, batch_size=100))
    assert torch.equal(found, (bound.margins(module, x, y, space) > 1e-4).all(1))
    assert not found[0], "a mistake is no certificate"
    assert found.any() and not bound.certified(module, x, y, Linf(0.9), 100).any()


@each_network
@pytest.mark.parametrize("bound", [Interval(), ConvexPolytope()], ids=str)
def test_rounding_is_a_tenth_of_what_certified_allows(name, bound):
    """float32 against float64, where a certificate is decided: at margins near 0.

    Adaptive lines are left out: they may turn on a rounding, and hold on either side.
    """
    module, x = seeded(NETWORKS[name]), uniform((8, *IMAGE), 1)
    y = module(x).argmax(1)
    exactly = copy.deepcopy(module).double()
    scale = module(x).abs().amax(1, keepdim=True).clamp(min=1.0)
    allowed = 0.1 * 2.0**-16 * scale
    assert ((module(x) - exactly(x.double())).abs() <= allowed).all()
    for eps in (0.0, 0.001, 0.004):
        found = bound.margins(module, x, y, Linf(eps))
        exact = bound.margins(exactly, x.double(), y, Linf(eps))
        over = (found - exact)[(exact.abs() < scale)]
        assert len(over) and (over <= allowed.max()).all()


def test_a_tie_is_not_certified():
    module = MLP(()).build((2,), 2, 0).requires_grad_(False)
    module[1].weight.zero_()
    module[1].bias.zero_()
    x, y = uniform((3, 2)), torch.zeros(3, dtype=torch.long)
    for bound in BOUNDS:
        assert not bound.certified(module, x, y, Linf(0.1), 8).any()


def test_reading_leaves_the_module_as_it_was():
    module = seeded(NETWORKS["norm_1d"])
    module.train()
    module[3].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    Interval().margins(module, uniform((3, *IMAGE)), torch.zeros(3, dtype=torch.long), Linf(0.1))
    assert [part.training for part in module] == [True, True, True, False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


class Calls(nn.Module):
    """A linear model behind a function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.last = function, nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.function(x))


def overwritten(x):
    y = x + 1.0
    y.view(len(y), 2, 2).mul_(2.0)
    return y


REFUSED = [
    (
        nn.Sequential(nn.Sigmoid(), nn.Linear(4, 2)),
        "layer '0' is a Sigmoid, which cannot be bounded",
    ),
    (nn.Sequential(nn.Linear(4, 2), nn.Softmax(1)), "layer '1' is a Softmax"),
    (Calls(torch.sigmoid), "Calls cannot be bounded: it calls sigmoid"),
    (Calls(lambda x: x * x), "it multiplies what depends on its input"),
    (Calls(lambda x: 1 / x), "it calls rdiv"),
    (Calls(lambda x: x if bool(x.sum() > 0) else -x), "it calls sum"),
    (Calls(lambda x: x if bool(x[0, 0] > 0) else -x), "it calls getitem"),
    (Calls(lambda x: x.view(1, -1).view(2, -1)), "its view mixes the examples of a batch"),
    (Calls(lambda x: x.data), "it calls get"),
    (Calls(lambda x: torch.from_numpy(x.numpy())), "it calls numpy"),
    (Calls(lambda x: nn.functional.dropout(x)), "its dropout flips coins in evaluation mode"),
    (Calls(lambda x: x.clamp(0, 1)), r"it clamps to \[0, 1\]"),
    (Calls(overwritten), "it overwrites a value that it reads again"),
    (
        Calls(lambda x: x + torch.arange(8.0).view(2, 4)),
        "a constant differs between examples",
    ),
    (Preprocessed(BitDepth(3), nn.Linear(4, 2)), "transforms its inputs by BitDepth"),
    (Preprocessed(GaussianNoise(0.1), nn.Linear(4, 2)), "flips coins"),
]


@pytest.mark.parametrize(("module", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_cannot_be_bounded_is_refused_by_name(module, message):
    x, y = uniform((3, 4)), torch.zeros(3, dtype=torch.long)
    for bound in BOUNDS:
        with pytest.raises(ValueError, match=message):
            bound.margins(module.eval(), x, y, Linf(0.1))


def test_what_torch_does_not_report_is_noticed():
    def hidden(x):
        with torch._C.DisableTorchFunction():
            return x.sin()

    module = seeded(lambda: Calls(lambda x: x + hidden(x)[:1]))
    with pytest.raises(ValueError, match="it does more than torch reports"):
        read(module, uniform((3, 4)))


@each_bound
def test_what_does_not_fit_is_said_at_set_up(bound):
    with pytest.raises(ValueError, match="no bounds over L0; they cover the balls of Linf, L2"):
        bound.check(L0(3))
    with pytest.raises(ValueError, match="layer '0' is a Tanh"):
        bound.check(Linf(0.1), nn.Sequential(nn.Tanh()))
    bound.check(L2(0.1), seeded(NETWORKS["wide_resnet"]))
