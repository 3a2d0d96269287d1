"""Degradations: kernels, noise and JPEG against their definitions; the whole against bicubic and against itself."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from arbiscale_jax import data
from arbiscale_jax.data import degradations as d
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config

OFF = dict(blur_prob=0.0, noise_prob=0.0, jpeg_prob=0.0)


@pytest.fixture(scope="module")
def photo():
    """A crop of a photograph, 96 pixels a side."""
    return Image.fromarray(data.make_source("embedded", split="val")[0][100:196, 200:296])


def grey(level: int, side: int = 128) -> Image.Image:
    return Image.fromarray(np.full((side, side, 3), level, np.uint8))


def config(kind="real", lr_size=24, **changes):
    """config.data for crops of 96 pixels; `changes` are fields of data or of data.real."""
    out = get_base_config().data
    out.update(degradation=kind, image_size=96, lr_size=lr_size, target_min=64, target_max=96, target_patch=64)
    for name, value in changes.items():
        (out.real if name in out.real else out)[name] = value
    return out


def shrink(image, seed=0, **changes):
    return d.make_shrink(config(**changes))(image, np.random.default_rng(seed))


def pixels(image) -> np.ndarray:
    return np.asarray(image, np.float64)


# Operators


@pytest.mark.parametrize(
    "sigma, angle, beta, rtol",
    [
        ((1.5, 1.5), 0.0, 1.0, 1e-6),
        ((3.0, 1.0), 0.6, 1.0, 1e-6),
        ((2.0, 4.0), -1.1, 2.5, 2e-3),
        ((3.0, 2.0), 0.3, 0.6, 1e-2),  # its sharp peak is sampled less well
    ],
)
def test_a_kernel_sums_to_one_and_has_the_stated_covariance(sigma, angle, beta, rtol):
    kernel = d.gaussian_kernel(40, sigma, angle, beta)
    assert kernel.shape == (81, 81) and kernel.min() >= 0
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-12)
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
    y, x = np.mgrid[-40:41, -40:41]
    covariance = [[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = turn @ np.diag(np.square(sigma)) @ turn.T
    np.testing.assert_allclose(covariance, expected, atol=rtol * expected.max())


def test_a_kernel_without_width_changes_nothing(photo):
    np.testing.assert_array_equal(d.blur(photo, d.gaussian_kernel(3, (0.0, 0.0))), photo)


def test_blur_is_the_convolution_with_the_mirrored_image(photo):
    kernel, x = d.gaussian_kernel(4, (2.0, 0.7), 0.5, 0.8), pixels(photo)
    padded = np.pad(x, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), (0, 1))  # h w 3 9 9
    expected = np.einsum("hwcij,ij->hwc", windows, kernel)
    assert abs(pixels(d.blur(photo, kernel)) - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("side", [1, 2, 5])
def test_blur_takes_images_smaller_than_the_kernel(side):
    blurred = d.blur(grey(77, side), d.gaussian_kernel(10, (3.0, 3.0)))
    np.testing.assert_array_equal(blurred, grey(77, side))


@pytest.mark.parametrize("sigma, is_grey", [(4.0, False), (20.0, True)])
def test_gaussian_noise_has_the_stated_sigma(sigma, is_grey):
    noise = pixels(d.gaussian_noise(grey(128), np.random.default_rng(0), sigma, grey=is_grey)) - 128
    np.testing.assert_allclose(noise.std(), np.sqrt(sigma**2 + 1 / 12), rtol=0.02)  # rounding adds 1/12
    assert abs(noise.mean()) < 4 * sigma / 128
    assert np.array_equal(noise[..., 0], noise[..., 1]) == is_grey


@pytest.mark.parametrize("level, peak, is_grey", [(40, 100.0, False), (200, 1000.0, False), (128, 300.0, True)])
def test_poisson_noise_has_the_variance_of_counted_photons(level, peak, is_grey):
    noise = pixels(d.poisson_noise(grey(level), np.random.default_rng(1), peak, grey=is_grey)) - level
    np.testing.assert_allclose(noise.std(), np.sqrt(255 * level / peak + 1 / 12), rtol=0.03)
    assert abs(noise.mean()) < 0.3 and np.array_equal(noise[..., 0], noise[..., 1]) == is_grey


def test_black_has_no_photons():
    black = d.poisson_noise(grey(0), np.random.default_rng(0), 100.0, grey=False)
    np.testing.assert_array_equal(black, grey(0))


@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg_is_pillows_round_trip(photo, quality):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as expected:
        np.testing.assert_array_equal(d.jpeg(photo, quality), expected)
    alone = shrink(photo, **OFF | dict(jpeg_prob=1.0, jpeg_quality=(quality, quality), lr_size=96))
    np.testing.assert_array_equal(alone, d.jpeg(d.jpeg(photo, quality), quality))


# The whole


def test_no_degradation_is_the_plain_bicubic_bit_for_bit(photo):
    plain = np.asarray(photo.resize((24, 24), d.BICUBIC))
    assert d.make_shrink(config("bicubic")) is None
    for seed in range(5):
        np.testing.assert_array_equal(shrink(photo, seed, prob=0.0), plain)
        np.testing.assert_array_equal(shrink(photo, seed, kind="bicubic", lr_scale_min=4.0, lr_scale_max=4.0), plain)
    nothing = OFF | dict(lr_scale_min=1.0, lr_scale_max=1.0, lr_size=96)
    np.testing.assert_array_equal(shrink(photo, **nothing), photo)


def test_a_range_of_scales_is_two_bicubics(photo):
    seen = set()
    for seed in range(30):
        side = max(1, round(96 / np.random.default_rng(seed).uniform(3, 12)))
        twice = photo.resize((side, side), d.BICUBIC).resize((24, 24), d.BICUBIC)
        made = shrink(photo, seed, kind="bicubic", lr_scale_min=3.0, lr_scale_max=12.0)
        np.testing.assert_array_equal(made, twice)
        seen.add(side)
    assert min(seen) < 12 and max(seen) > 24


def test_without_noise_the_mean_colour_and_the_place_are_kept(photo):
    x = pixels(photo)
    for seed in range(40):
        lr = pixels(shrink(photo, seed, noise_prob=0.0, jpeg_prob=0.0))
        assert abs(lr.mean((0, 1)) - x.mean((0, 1))).max() < 1, seed
    spot = np.zeros((96, 96, 3), np.uint8)
    spot[38:46, 58:66] = 255  # its centre: (42, 62) of 96 pixels
    for seed in range(40):
        lr = pixels(shrink(Image.fromarray(spot), seed, noise_prob=0.0, jpeg_prob=0.0)).sum(-1)
        centre = [(lr.sum(axis) @ (np.arange(24) + 0.5)) / lr.sum() for axis in (1, 0)]
        np.testing.assert_allclose(centre, [42 / 4, 62 / 4], atol=0.15)


def test_degraded_images_differ_from_each_other_and_from_bicubic(photo):
    made = [shrink(photo, seed) for seed in range(40)]
    assert all(one.size == (24, 24) and one.mode == "RGB" for one in made)
    assert len({one.tobytes() for one in made}) == 40
    distance = [abs(pixels(one) - pixels(photo.resize((24, 24), d.BICUBIC))).mean() for one in made]
    assert min(distance) > 0.1 and np.median(distance) > 2 and max(distance) < 60
    np.testing.assert_array_equal(shrink(photo, 7), made[7])


def test_the_operators_come_in_every_order(photo, monkeypatch):
    seen, order = set(), []
    for name in ("blur", "gaussian_noise", "jpeg"):
        real = getattr(d, name)
        monkeypatch.setattr(d, name, lambda *args, name=name, real=real, **kw: order.append(name) or real(*args, **kw))
    for seed in range(120):
        order.clear()
        shrink(photo, seed, blur_prob=1.0, noise_prob=1.0, jpeg_prob=1.0, poisson_prob=0.0)
        assert order[-1] == "jpeg" and len(order) == 5
        seen.add(tuple(order[:-1]))
    assert len(seen) == 12  # of blur, blur, noise, jpeg


# In batches


@pytest.fixture
def batches(request):
    """Returns the first n batches of a configuration, and ends the loader after the test."""

    def take(n, **changes):
        loader = data.train_batches(config(**changes), seed=5, batch_size=4)
        request.addfinalizer(loader.close)
        return [next(loader) for _ in range(n)]

    return take


def test_batches_are_deterministic_and_only_their_lr_image_changes(batches):
    one, same, plain = batches(2), batches(2), batches(2, kind="bicubic")
    for a, b in zip(one, same, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    for a, b in zip(one, plain, strict=True):
        for name in a.keys() - {"lr"}:
            np.testing.assert_array_equal(a[name], b[name])
        assert (abs(a["lr"] - b["lr"]).max((1, 2, 3)) > 0.01).all()


def test_validation_degrades_each_crop_in_its_own_fixed_way():
    val, again, plain = (data.val_batch(config(kind)) for kind in ("real", "real", "bicubic"))
    np.testing.assert_array_equal(val["lr"], again["lr"])
    np.testing.assert_array_equal(val["image"], plain["image"])
    assert (abs(val["lr"] - plain["lr"]).max((1, 2, 3)) > 0.01).all()


def test_what_makes_the_lr_image_can_be_sent_to_a_worker(photo):
    function = pickle.loads(pickle.dumps(d.make_shrink(config())))
    np.testing.assert_array_equal(function(photo, np.random.default_rng(3)), shrink(photo, 3))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(kind="blind"), "degradation is one of bicubic, real, got 'blind'"),
        (dict(lr_scale_max=4.0), "lr_scale_min <= data.lr_scale_max .* got 0.0 and 4.0"),
        (dict(lr_scale_min=5.0, lr_scale_max=4.0), "got 5.0 and 4.0"),
        (dict(lr_scale_min=1.0, lr_scale_max=97.0), "<= data.image_size must hold"),
        (dict(prob=1.5), "data.real.prob is a probability, within 0 and 1, got 1.5"),
        (dict(blur_prob=float("nan")), "data.real.blur_prob is a probability"),
        (dict(noise_sigma=(3.0, 1.0)), r"noise_sigma is \(low, high\) with 0 <= low <= high <= 255, got \(3.0, 1.0\)"),
        (dict(jpeg_quality=(0, 95)), r"jpeg_quality is \(low, high\) with 1 <= low"),
        (dict(beta=(1.0, 2.0, 3.0)), r"beta is \(low, high\)"),
    ],
)
def test_wrong_fields_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        data.val_batch(config(**changes))
