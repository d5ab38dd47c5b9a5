"""What defenders do to inputs: closed forms, laws, and no dependence on the batch."""

import io

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import median_filter
from small import attacker, defender, evasion, last, seen, turn_on
from torch import nn
from torch.nn.functional import cross_entropy, interpolate, pad

from arena import Labelled, chance
from arena.attacks.bpda import BPDA
from arena.attacks.eot import EOT
from arena.attacks.pgd import PGD
from arena.defenses.erm import ERM
from arena.learners.fovea import Fovea, Foveated
from arena.learners.networks import CNN, MLP
from arena.learners.preprocessing import Preprocessed, Preprocessing
from arena.training.classifiers import ModuleClassifier, RandomClassifier, committed
from arena.transformations.bit_depth import BitDepth
from arena.transformations.crop_rescale import CropRescale
from arena.transformations.gaussian_noise import GaussianNoise
from arena.transformations.jpeg import JPEG
from arena.transformations.median_smoothing import MedianSmoothing
from arena.transformations.resize_pad import ResizePad
from arena.transformations.thermometer import SoftThermometer, Thermometer
from arena.transformations.total_variation import TotalVariation

WITHIN = [
    BitDepth(),
    CropRescale(0.4),
    JPEG(30),
    MedianSmoothing(2),
    MedianSmoothing(3),
    ResizePad(0.5),
    SoftThermometer(5),
    Thermometer(5),
    TotalVariation(weight=0.1, steps=8),
]
RANDOM = (CropRescale, GaussianNoise, ResizePad, TotalVariation)


def images(n=20, shape=(3, 11, 9), seed=1):
    """Random images; the first is black, the second white, the third smooth."""
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    x[0], x[1] = 0.0, 1.0
    x[2] = torch.linspace(0, 1, shape[-1])
    return x


def same(n=1):
    return chance.keys(0, n)


# All of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 11, 9), (1, 8, 8)], ids=str)
@pytest.mark.parametrize("change", [*WITHIN, GaussianNoise(0.1)], ids=str)
def test_an_image_gets_the_same_bits_in_any_batch(change, shape):
    x, key = images(shape=shape), chance.keys(5, 20)
    whole = change(x, key)
    for size in (1, 7):
        parts = [change(*part) for part in zip(x.split(size), key.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("change", [*WITHIN, GaussianNoise(0.1)], ids=str)
def test_coins_are_in_the_key_and_only_random_ones_look_at_it(change):
    x = images()
    first, again, other = (change(x, chance.keys(seed, 20)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert change.random is isinstance(change, RANDOM)
    assert torch.equal(first, other) is not change.random


@pytest.mark.parametrize("change", WITHIN, ids=str)
def test_the_box_is_kept_whatever_it_is(change):
    x, key = images(), same(20)
    assert change(x, key).min() >= 0 and change(x, key).max() <= 1
    if hasattr(change, "box"):
        moved = type(change)(**{**vars(change), "box": (-2.0, 6.0), **scaled(change)})
        found, expected = moved(8 * x - 2, key), change(x, key)
        if not isinstance(change, Thermometer | SoftThermometer):
            expected = 8 * expected - 2
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def scaled(change):
    """What else of a transformation has the units of its input."""
    return {"weight": 8 * change.weight} if isinstance(change, TotalVariation) else {}


@pytest.mark.parametrize(
    "change", [CropRescale(), JPEG(), MedianSmoothing(), TotalVariation()], ids=str
)
def test_features_are_no_images(change):
    with pytest.raises(ValueError, match=r"not inputs of shape \[5\]; .*drop it"):
        change(torch.zeros(3, 5), same(3))


@pytest.mark.parametrize("change", WITHIN, ids=str)
def test_gradients_are_finite_and_those_of_steps_are_0(change):
    x = images().requires_grad_()
    (slope,) = torch.autograd.grad(change(x, same(20)).square().sum(), x)
    assert slope.isfinite().all()
    assert slope.any() != isinstance(change, BitDepth | JPEG | Thermometer)


# JPEG ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quality", "step"), [(10, 80), (50, 16), (75, 8), (90, 3), (100, 1)])
def test_of_a_constant_block_jpeg_rounds_the_mean(quality, step):
    """Its one coefficient is 8 (c - 128), and `step` is 16 scaled by the quality."""
    level = torch.arange(256.0)
    x = (level / 255)[:, None, None, None].expand(-1, 1, 8, 8)
    mean = 128 + torch.round(8 * (level - 128) / step) * step / 8
    expected = mean.round().clamp(0, 255)[:, None, None, None].expand_as(x)
    torch.testing.assert_close(JPEG(quality)(x, same(256)) * 255, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("amplitude", "left"), [(0, 0), (45, 0), (55, 99), (99, 99), (145, 99)])
def test_of_a_wave_jpeg_rounds_the_amplitude(amplitude, left):
    """The fastest diagonal wave, of step 99 at quality 50; pixels are rounded before and after."""
    cosine = torch.cos((2 * torch.arange(8.0) + 1) * 7 * torch.pi / 16) / 2
    wave = cosine.outer(cosine)[None, None]
    found = JPEG(50)((128 + amplitude * wave) / 255, same()) * 255
    torch.testing.assert_close(found, 128 + left * wave, atol=0.51, rtol=0)


def test_jpeg_of_the_best_quality_rounds_only():
    x = (images() * 255).round() / 255
    error = 255 * (JPEG(100)(x[:, :1], same(20)) - x[:, :1])
    # Orthonormal coefficients, each off by at most 1/2: at most 8 / 2 together in a block, and as
    # much as uniform noise (a root mean square of .29 each) on average; then pixels are rounded.
    assert error.abs().max() <= 4.5 and error.square().mean().sqrt() < 0.29 * 2**0.5 * 1.2


def test_jpeg_continues_an_image_by_its_edges():
    x = images(shape=(1, 13, 5))
    whole = JPEG(40)(pad(x, (0, 3, 0, 3), mode="replicate"), same(20))
    assert torch.equal(JPEG(40)(x, same(20)), whole[..., :13, :5])


def test_jpeg_of_a_gray_image_in_color_is_that_of_one_channel():
    x = images(shape=(1, 13, 19))
    expected = JPEG(40)(x, same(20)).expand(-1, 3, -1, -1)
    torch.testing.assert_close(JPEG(40)(x.expand(-1, 3, -1, -1), same(20)), expected)


def pillow(levels, quality):
    """What Pillow makes of an image [C, H, W] of levels, and its steps for luminance [8, 8]."""
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pixels = levels.permute(1, 2, 0).byte().numpy()
    image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
    opened = image.open(file)
    decoded = torch.tensor(np.asarray(opened).reshape(pixels.shape)).permute(2, 0, 1)
    return decoded.float(), np.array(opened.quantization[0]).reshape(8, 8)


@pytest.mark.parametrize("quality", [20, 50, 75])
def test_jpeg_rounds_every_coefficient_as_pillow_does(quality):
    """But for those within rounding of the middle between two steps.

    Pillow's library transforms in whole numbers, of eighths: it may be off by that much.
    """
    x = 0.3 + 0.4 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(quality))
    levels = (x * 255).round()
    theirs, steps = pillow(levels[0], quality)

    def coefficients(pixels):
        blocks = pixels.double().reshape(8, 8, 8, 8).permute(0, 2, 1, 3).numpy() - 128
        return dctn(blocks, axes=(2, 3), norm="ortho") / steps

    exact = coefficients(levels)
    mine = JPEG(quality)(levels / 255, same())[0] * 255
    assert mine.min() > 0 and mine.max() < 255, "clipped: nothing can be told"
    found, expected = (np.round(coefficients(image)) for image in (mine, theirs))
    sure = np.abs(exact - np.floor(exact) - 0.5) > 0.125 / steps
    assert sure.mean() > 0.8
    assert (found == expected)[sure].all()


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_jpeg_in_color_is_pillows_to_within_a_few_levels(quality):
    """Of squares of 2 x 2 pixels, whose chrominance has one way to be halved."""
    generator = torch.Generator().manual_seed(quality)
    x = interpolate(torch.rand(9, 3, 5, 5, generator=generator), (19, 14), mode="bicubic")
    levels = interpolate((x.clamp(0, 1) * 255).round(), scale_factor=2)
    mine = JPEG(quality)(levels / 255, same(9)) * 255
    theirs = torch.stack([pillow(image, quality)[0] for image in levels])
    off, lost = (mine - theirs).abs(), (theirs - levels).abs()
    assert off.quantile(0.95) < 3.5 and off.mean() < lost.mean() / 10


# Thermometer -----------------------------------------------------------------------------------


def test_a_thermometer_reads_as_in_the_paper():
    bar = Thermometer(10)(torch.tensor([[0.66], [0.0], [1.0]]), same(3))
    assert bar.tolist() == [[1.0] * 6 + [0.0] * 4, [0.0] * 10, [1.0] * 9 + [0.0]]
    assert torch.equal(Thermometer(10, (-1.0, 1.0))(torch.tensor([[0.32]]), same()), bar[:1])


def test_a_thermometer_keeps_the_places_of_pixels():
    x = images()
    bars = Thermometer(4)(x, same(20))
    assert bars.shape == (20, 12, 11, 9)
    for level in range(4):
        assert torch.equal(bars[:, level::4], (x > (level + 1) / 4).float())


def test_bpda_goes_through_a_thermometer_by_the_soft_one():
    """Of a linear model: the weights of the features that are on, where the bar stops short."""
    linear = MLP(()).build((4 * 5,), 3, seed=0)
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    data = Labelled(x, torch.zeros(30, dtype=torch.long), 3)
    view = seen(committed(Preprocessed(Thermometer(5), linear), 3), data)
    wrapper = BPDA(PGD(), backward=SoftThermometer(5))
    through = wrapper.through(view, turn_on(view, wrapper, data))
    given, rows = x.clone().requires_grad_(), torch.arange(30)
    assert torch.equal(through.logits(x, rows), view.logits(x, rows))
    (slope,) = torch.autograd.grad(through.logits(given, rows)[:, 0].sum(), given)
    weights = linear[1].weight[0].reshape(4, 5)
    on = x[:, :, None] > torch.arange(1, 6) / 5
    torch.testing.assert_close(slope, (weights * on).sum(2))


# Median ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_median_smoothing_is_scipys(width):
    x = images()
    expected = median_filter(x.numpy(), (1, 1, width, width), mode="reflect")
    assert torch.equal(MedianSmoothing(width)(x, same(20)), torch.tensor(expected))


def test_median_smoothing_needs_room():
    with pytest.raises(ValueError, match=r"width=9.*\[3, 11, 8\]; take a smaller width"):
        MedianSmoothing(9)(torch.zeros(2, 3, 11, 8), same(2))


# Crops -----------------------------------------------------------------------------------------


def test_a_crop_of_everything_is_the_image():
    assert torch.equal(CropRescale(1.0)(images(), same(20)), images())


def test_a_crop_is_enlarged_as_torch_enlarges_it_wherever_it_is():
    image = torch.rand(1, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    x = image.expand(600, -1, -1, -1)
    found = CropRescale(0.5)(x, chance.keys(2, 600))
    crops = {}
    for share in torch.linspace(0.501, 1, 100):
        high, wide = (int((share * size).round()) for size in (6, 5))
        for a in range(6 - high + 1):
            for b in range(5 - wide + 1):
                crops[high, wide, a, b] = image[..., a : a + high, b : b + wide]
    enlarged = torch.cat(
        [interpolate(crop, (6, 5), mode="bilinear", align_corners=False) for crop in crops.values()]
    )
    off = (found[:, None] - enlarged).abs().amax((2, 3, 4))
    assert off.amin(1).max() < 1e-6, "no crop of the image"
    assert len(off.argmin(1).unique()) == len(crops), "some are never taken"


class Flat(nn.Module):
    """Its input, as logits."""

    def forward(self, x):
        return x.flatten(1)


def test_a_fovea_that_sees_everything_at_once_is_the_model():
    for learner in (CNN((3,), 5), MLP((7,))):
        model, fovea = (
            built.build((1, 9, 8), 4, seed=3) for built in (learner, Fovea(learner, 1, 1.0))
        )
        x = images(shape=(1, 9, 8))
        assert torch.equal(fovea(x), model(x))


@pytest.mark.parametrize(
    ("crops", "share", "rows", "columns"),
    [
        (1, 0.5, [(2, 6)], [(1, 4)]),
        (2, 0.5, [(0, 4), (4, 8)], [(0, 3), (3, 6)]),
        (3, 0.75, [(0, 6), (1, 7), (2, 8)], [(0, 4), (1, 5), (2, 6)]),
    ],
)
def test_a_fovea_averages_over_crops_from_edge_to_edge(crops, share, rows, columns):
    x = images(shape=(1, 8, 6))
    parts = [
        interpolate(x[..., a:b, c:d], (8, 6), mode="bilinear", align_corners=False).flatten(1)
        for a, b in rows
        for c, d in columns
    ]
    if share == 0.75:
        assert round(0.75 * 6) == 4  # half to even
    torch.testing.assert_close(Foveated(Flat(), crops, share)(x), torch.stack(parts).mean(0))


def test_a_fovea_of_a_random_model_has_coins_for_every_crop():
    noisy = Preprocessed(GaussianNoise(1.0), Flat())
    x, key = torch.zeros(400, 1, 4, 4), chance.keys(0, 400)
    fovea = Foveated(noisy, 2, 1.0).eval()
    assert type(committed(fovea, 16)) is RandomClassifier
    assert type(committed(Foveated(Flat(), 2, 1.0), 16)) is ModuleClassifier
    assert torch.equal(fovea(x, key), fovea(x, key))
    # The mean of four independent normal numbers; 6 400 of them, a standard error of .0044.
    assert abs(float(fovea(x, key).std()) - 0.5) < 0.02


def test_the_mean_over_crops_has_the_gradient_of_its_parts():
    model = MLP((9,)).build((1, 8, 8), 3, seed=0)
    x, y = images(shape=(1, 8, 8)).requires_grad_(), torch.arange(20) % 3
    fovea = Foveated(model, 2, 0.5)
    (slope,) = torch.autograd.grad(cross_entropy(fovea(x), y), x)
    assert (slope != 0).flatten(1).all(), "a pixel that no crop sees"


def test_a_fovea_needs_images():
    with pytest.raises(ValueError, match=r"Fovea crops images.*\[64\]; drop it"):
        Fovea(MLP()).build((64,), 3, seed=0)


# Total variation -------------------------------------------------------------------------------


def energy(z, x, kept, weight):
    variation = z.diff(dim=-1).abs().sum((1, 2, 3)) + z.diff(dim=-2).abs().sum((1, 2, 3))
    return (kept * (z - x).square()).sum((1, 2, 3)) / 2 + weight * variation


def test_variation_that_weighs_nothing_leaves_an_image_alone():
    x = images()
    assert torch.equal(TotalVariation(weight=0.0, keep=1.0)(x, same(20)), x)


def test_a_constant_image_cannot_get_simpler():
    x = images(20, (1, 1, 1)).expand(-1, 2, 7, 6)
    torch.testing.assert_close(TotalVariation(weight=0.2)(x, same(20)), x)


@pytest.mark.parametrize(("weight", "gap"), [(0.3, 0.4), (1.5, 0.0)])
def test_two_halves_come_nearer_by_the_weight_over_their_width(weight, gap):
    """Row by row: 3 (z - 0.2)^2 / 2 + 3 (w - 0.8)^2 / 2 + weight |w - z|."""
    x = torch.full((1, 1, 5, 6), 0.2)
    x[..., 3:] = 0.8
    z = TotalVariation(weight, keep=1.0, steps=600)(x, same())
    expected = torch.full_like(x, 0.5 - gap / 2)
    expected[..., 3:] = 0.5 + gap / 2
    torch.testing.assert_close(z, expected, atol=1e-3, rtol=0)


def test_what_is_dropped_does_not_matter_and_a_given_share_is():
    x, key = images(40, (1, 8, 8)).requires_grad_(), chance.keys(4, 40)
    change = TotalVariation(0.01, keep=0.25, box=(-9.0, 9.0))
    z = change(x, key)
    weights = torch.rand(z.shape, generator=torch.Generator().manual_seed(0)) + 1
    (slope,) = torch.autograd.grad((weights * z).sum(), x)
    dropped = slope == 0
    # 2 560 coins of probability 1/4: a standard deviation of .0086.
    assert abs(float(dropped.float().mean()) - 0.75) < 0.035
    assert torch.equal(change(torch.where(dropped, 1 - x, x), key), z)


@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_more_steps_come_nearer_to_the_least_energy(keep):
    x, key, weight = images(), chance.keys(1, 20), 0.05
    kept = (chance.uniform(key, x.shape[1:]) < keep).float()
    mean = (kept * x).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
    start = energy(torch.where(kept > 0, x, mean), x, kept, weight)
    found = [
        energy(TotalVariation(weight, keep, steps)(x, key), x, kept, weight)
        for steps in (10, 30, 100, 2000)
    ]
    busy = start > 1.0  # not of the images that are constant, or nearly
    assert busy.sum() == 18
    for before, after in zip([start, *found], found, strict=False):
        assert (after <= before + 1e-4).all()
    assert (found[1][busy] < 1.05 * found[-1][busy]).all(), "the default is not near enough"


def test_with_every_pixel_kept_the_variation_falls():
    x = images()
    z = TotalVariation(0.05, keep=1.0)(x, same(20))
    nothing = torch.zeros_like(x)
    assert (energy(z, x, nothing, 1.0) <= energy(x, x, nothing, 1.0) + 1e-4).all()


# Matches ---------------------------------------------------------------------------------------


def test_a_match_against_crops_depends_on_no_batch_size():
    strategy, model = (
        EOT(PGD(2, 0.4), draws=2),
        ERM(Preprocessing(MLP((16,)), CropRescale(0.6)), epochs=2),
    )
    records = [
        last(evasion(attacker(strategy), defender(model), examples=30, rows=rows))
        for rows in (1, 7, 1024)
    ]
    for record in records:
        torch.testing.assert_close(record.costs, records[0].costs)
        assert record.metrics["queries"] == records[0].metrics["queries"]
