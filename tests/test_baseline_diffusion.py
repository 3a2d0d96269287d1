"""SR3 and IDM: parity with PyTorch, published sizes, identities of diffusion in pixel space, bad checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from arbiscale_jax import UserError, diffusion
from arbiscale_jax.baselines import pixel_diffusion
from arbiscale_jax.baselines.idm_unet import IDM, nearest_cells, size_fraction
from arbiscale_jax.baselines.sr3_unet import SR3UNet, upsampled
from arbiscale_jax.interop import diffusers_layout

torch = pytest.importorskip("torch")

import reference_diffusers as reference  # noqa: E402

TINY = dict(inner_channel=8, channel_multiplier=[1, 2, 3], attn_res=[8], res_blocks=1, norm_groups=4, image_size=16)
FIELDS = dict(channels=8, channel_mult=(1, 2, 3), num_res_blocks=1, attention_levels=(1,), num_groups=4, out_channels=3)
ENCODER = dict(channels=8, blocks=2)
IDM_FIELDS = FIELDS | dict(implicit_width=256, encoder_channels=8, encoder_blocks=2)
LEVELS = np.float32([0.999, 0.3])
FRACTION = np.float32([0.8, 0.1])
ALPHA_BAR = diffusion.make_alpha_bar(2000, 1e-6, 1e-2, power=1)


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def to_torch(x):
    return torch.tensor(x).permute(0, 3, 1, 2)


def close(found, wanted):
    """The largest difference is under 1e-4 of the array's std."""
    wanted = wanted.permute(0, 2, 3, 1).numpy()
    assert found.shape == wanted.shape
    assert np.abs(np.asarray(found) - wanted).max() < 1e-4 * wanted.std()


def arrays(weights):
    return {key: x.numpy() for key, x in weights.items()} | {key: np.zeros(3, np.float32) for key in reference.BUFFERS}


@pytest.fixture(scope="module")
def sr3():
    return reference.sr3_weights(TINY)


@pytest.fixture(scope="module")
def idm():
    return reference.idm_weights(TINY, **ENCODER)


@torch.no_grad()
def test_sr3_agrees_with_pytorch(sr3):
    x_t, condition = images(2, 8, 12, 3), images(2, 8, 12, 3, seed=1)
    wanted = reference.unet(
        sr3, torch.cat([to_torch(condition), to_torch(x_t)], 1), torch.tensor(LEVELS)[:, None], TINY
    )
    fields, params = diffusers_layout.load_sr3(arrays(sr3), num_groups=4)
    assert fields == FIELDS
    found = jax.jit(SR3UNet(**fields).apply)({"params": params}, x_t, LEVELS, condition)
    close(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (13, 10)])  # 7 -> 13 and 4 -> 7 rows, 3 -> 5 and 5 -> 10 columns
def test_idm_agrees_with_pytorch(idm, size):
    x_t, lr = images(2, *size, 3), images(2, 4, 5, 3, seed=1)
    condition = reference.idm_condition(idm, to_torch(lr), size, **ENCODER)
    levels, fraction = torch.tensor(LEVELS)[:, None], torch.tensor(FRACTION)[:, None]
    wanted = reference.idm(idm, to_torch(x_t), levels, condition, fraction, TINY)
    fields, params = diffusers_layout.load_idm(arrays(idm), num_groups=4)
    assert fields == IDM_FIELDS

    @jax.jit
    def both(x_t, lr):
        model, params_ = IDM(**fields), {"params": params}
        condition = model.apply(params_, lr, size, method="encode")
        return condition, model.apply(params_, x_t, LEVELS, condition, FRACTION, method="denoise")

    found = both(x_t, lr)
    close(found[0], condition)
    close(found[1], wanted)


def count(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


def sizes(weights):
    return {key: tuple(x.shape) for key, x in weights.items()}


def test_published_sizes():
    """SR3 16 -> 128 has 97.8 million parameters; IDM's paper says 116.6, of which its code uses 99.8."""
    image = (1, 16, 16, 3)
    whole = sizes(reference.sr3_weights(device="meta"))
    sr3 = count(diffusers_layout.parameter_shapes(SR3UNet(), image, (1,), image))
    assert sr3 == count(whole) == 97_807_491
    whole = sizes(reference.idm_weights(device="meta"))
    assert count(whole) == 116_590_885
    used = count(diffusers_layout.parameter_shapes(IDM(), image, (1,), (1, 2, 2, 3), (1,)))
    unused = [key for key in whole if diffusers_layout.idm_unused(4).match(key)]
    assert used == count(whole) - count({key: whole[key] for key in unused}) == 99_801_670


def test_the_published_sizes_of_64_to_512():
    image = (1, 16, 16, 3)
    large = SR3UNet(channel_mult=(1, 2, 4, 8, 16), num_res_blocks=1, attention_levels=(), num_groups=16)
    assert count(diffusers_layout.parameter_shapes(large, image, (1,), image)) == 155_334_339


def test_sr3_needs_sides_that_halve():
    with pytest.raises(ValueError, match=r"multiples of 16, got \(20, 16\)"):
        diffusers_layout.parameter_shapes(SR3UNet(), (1, 20, 16, 3), (1,), (1, 20, 16, 3))


def test_sr3s_condition_keeps_constants_and_the_range():
    np.testing.assert_allclose(upsampled(jnp.full((1, 2, 3, 3), 0.5), (16, 24)), 0.5, atol=1e-6)
    assert np.abs(upsampled(np.sign(images(1, 4, 4, 3)), (9, 9))).max() <= 1


def test_dropout_belongs_to_the_example(sr3):
    _, params = diffusers_layout.load_sr3(arrays(sr3), num_groups=4)
    x, keys = images(3, 4, 4, 3), jax.random.split(jax.random.key(0), 3)
    model = SR3UNet(**FIELDS, dropout=0.5)
    run = jax.jit(lambda x, keys: model.apply({"params": params}, x, jnp.full(3, 0.5), x, keys))
    out = run(x, keys)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(run(x[order], keys[order]), out[order], atol=1e-4)
    assert np.abs(out - run(x, keys[order])).max() > 0.1


@pytest.mark.parametrize("side, wanted", [(16, 0), (128, 1), (72, 0.5), (240, 2)])
def test_the_fraction_of_a_size(side, wanted):
    assert size_fraction(16, side) == pytest.approx(wanted)


@pytest.mark.parametrize("sides", [(0, 4, 8), (4, 0, 8), (4, 8, 1)])
def test_a_fraction_needs_sizes(sides):
    with pytest.raises(ValueError, match="largest_scale is above 1, got"):
        size_fraction(*sides)


@pytest.mark.parametrize("cells, pixels", [(4, 4), (4, 8), (7, 13), (3, 5)])
def test_nearest_cells(cells, pixels):
    near = nearest_cells(cells, pixels)
    place = (np.arange(pixels) + 0.5) * cells / pixels - 0.5  # in units of cells
    np.testing.assert_allclose(near.cells + near.rel / 2, place, atol=1e-6)
    assert np.abs(near.rel).max() <= 1 + 1e-6


# --- diffusion in pixel space


def test_the_schedule_is_its_closed_form():
    betas = [1e-6 + (1e-2 - 1e-6) * t / 1999 for t in range(2000)]
    np.testing.assert_allclose(np.log(ALPHA_BAR), np.cumsum(np.log1p(-np.array(betas))), rtol=1e-9)
    assert ALPHA_BAR.dtype == np.float64 and ALPHA_BAR[0] == pytest.approx(1 - 1e-6)


@pytest.mark.parametrize("args", [(1, 0.1, 0.2), (10, 0.0, 0.1), (10, 0.1, 0.05), (10, 0.1, 1.0)])
def test_a_schedule_needs_increasing_betas(args):
    with pytest.raises(ValueError, match="timesteps >= 2 and 0 < linear_start <= linear_end < 1"):
        diffusion.make_alpha_bar(*args, power=1)


def test_the_true_noise_gives_back_the_image():
    x, eps = images(4, 3, 5, 3), images(4, 3, 5, 3, seed=1)
    level = jnp.array([1.0, 0.9999995, 0.5, 0.05])
    x_t = pixel_diffusion.add_noise(x, eps, level)
    scaled = level[:, None, None, None]
    np.testing.assert_allclose((x_t - jnp.sqrt(1 - scaled**2) * eps) / scaled, x, atol=1e-4)
    np.testing.assert_allclose(x_t[1] - x[1], 1e-3 * eps[1], rtol=0.05, atol=1e-6)
    with pytest.raises(ValueError, match="eps must match x"):
        pixel_diffusion.add_noise(x, eps[:1], level)


def test_levels_are_uniform_between_neighbouring_times():
    alpha_bar = np.array([0.81, 0.25])
    level = np.asarray(pixel_diffusion.draw_noise_level(jax.random.key(0), alpha_bar, 20_000))
    assert level.max() <= 1 and level.min() >= 0.5
    first = level[level > 0.9]
    assert len(first) / len(level) == pytest.approx(0.5, abs=0.02)
    assert first.mean() == pytest.approx(0.95, abs=0.002)
    assert level[level <= 0.9].mean() == pytest.approx(0.7, abs=0.005)


def test_the_loss_is_the_mean_absolute_error():
    x = images(3, 4, 6, 3)

    def shifted(x_t, level):  # the true noise plus 0.25
        level = level[:, None, None, None]
        return (x_t - level * x) / jnp.sqrt(1 - level**2) + 0.25

    loss = pixel_diffusion.training_loss(jax.random.key(1), shifted, x, ALPHA_BAR)
    np.testing.assert_allclose(loss, np.full(3, 0.25), atol=1e-2)


MEAN, STD = 0.3, 0.1


def gaussian_eps(params, x_t, level, condition):
    """The best eps_hat for images of independent pixels N(condition, STD^2)."""
    level = level[:, None, None, None]
    variance = level**2 * STD**2 + (1 - level) * (1 + level)
    return jnp.sqrt((1 - level) * (1 + level)) * (x_t - level * condition) / variance


def exact_std(steps, eta):
    """The standard deviation with which the sampler ends, from the linear recursion of its steps."""
    levels, variance = diffusion.trajectory("ddim_trailing", steps, ALPHA_BAR).alpha_bar, 1.0
    for a_t, a_s in zip(levels[:-1], levels[1:], strict=True):
        sigma = diffusion.ddim_sigma(a_t, a_s, eta)
        slope = np.sqrt(1 - a_t) / (a_t * STD**2 + 1 - a_t)  # of eps_hat
        slope = np.sqrt(a_s / a_t) * (1 - np.sqrt(1 - a_t) * slope) + np.sqrt(1 - a_s - sigma**2) * slope
        variance = slope**2 * variance + sigma**2
    return np.sqrt(variance)


@pytest.mark.parametrize("steps, eta, tolerance", [(2000, 1.0, 0.02), (200, 0.0, 0.07), (200, 1.0, 0.15)])
def test_the_sampler_returns_the_distribution(steps, eta, tolerance):
    """Few steps narrow the distribution."""
    run = pixel_diffusion.make_sampler(gaussian_eps, ALPHA_BAR, steps=None if steps == 2000 else steps, eta=eta)
    x = run(jax.random.key(0), {}, jnp.full((1, 1, 1, 1), MEAN), (1, 64, 64, 1))
    assert exact_std(steps, eta) == pytest.approx(STD, rel=tolerance)
    assert x.mean() == pytest.approx(MEAN, abs=0.006)
    assert x.std() == pytest.approx(exact_std(steps, eta), rel=0.03)


def test_an_ancestral_step_is_the_posterior():
    """One step of the loop of the public code, whose predicted image is clipped."""
    alpha_bar = ALPHA_BAR[[200, 1500]]
    x_T = jax.random.normal(jax.random.split(jax.random.key(5))[0], (1, 8, 8, 1))  # as `sample` draws it
    seen = []

    def eps_fn(x_t, level):
        seen.append(x_t)
        return jnp.zeros_like(x_t)

    with jax.disable_jit():
        out = pixel_diffusion.sample(jax.random.key(5), eps_fn, x_T.shape, alpha_bar)
    (first, second), (after, before) = seen, alpha_bar
    np.testing.assert_allclose(first, x_T)
    beta = 1 - before / after
    x = np.clip(np.asarray(x_T) / np.sqrt(before), -1, 1)
    mean = beta * np.sqrt(after) / (1 - before) * x + (1 - after) * np.sqrt(1 - beta) / (1 - before) * np.asarray(x_T)
    noise = (np.asarray(second) - mean) / np.sqrt(beta * (1 - after) / (1 - before))
    drawn = jax.random.normal(jax.random.fold_in(jax.random.split(jax.random.key(5))[1], 0), x_T.shape)
    np.testing.assert_allclose(noise, drawn, atol=1e-4)
    np.testing.assert_allclose(out, np.clip(second / np.sqrt(after), -1, 1), atol=1e-5)


@pytest.mark.parametrize("options, match", [(dict(steps=0), "from 1 to 2000"), (dict(eta=2.0), "eta lies in")])
def test_a_sampler_needs_its_options_in_range(options, match):
    with pytest.raises(ValueError, match=match):
        pixel_diffusion.sample(jax.random.key(0), lambda x, _: x, (1, 2, 2, 1), ALPHA_BAR, **options)


# --- bad checkpoints

DOWN = "denoise_fn.downs.0.weight"
BLOCK = "denoise_fn.downs.3.res_block.block1.block.3.weight"
FINAL = "denoise_fn.final_conv.block.3.bias"


@pytest.mark.parametrize(
    "key, value, match",
    [
        (DOWN, None, f"lacks {DOWN}: expected an array with 4 axes, found none"),
        (BLOCK, None, f"lacks {BLOCK}: expected an array with 4 axes, found none"),
        (FINAL, None, rf"lacks {FINAL}: expected an array of shape \(3,\), found none"),
        (DOWN, np.zeros((8, 3)), rf"{DOWN} .*: expected an array with 4 axes and no empty one, found shape \(8, 3\)"),
        (
            DOWN,
            np.zeros((0, 6, 3, 3)),
            rf"{DOWN} .*: expected an array with 4 axes and no empty one, found shape \(0, ",
        ),
        (DOWN, np.zeros((9, 6, 3, 3)), f"{DOWN} .*: expected a multiple of num_groups=4 output channels, found 9"),
        (DOWN, np.zeros((8, 7, 3, 3)), rf"{DOWN} .*: expected shape \(8, 6, 3, 3\), found \(8, 7, 3, 3\)"),
        (BLOCK, np.zeros((9, 8, 3, 3)), f"{BLOCK} .*: expected a multiple of 8 output channels, found 9"),
        (FINAL, np.zeros(4), rf"{FINAL} .*: expected shape \(3,\), found \(4,\)"),
        (FINAL, np.zeros(3, np.int8), f"{FINAL} .*: expected floating-point, found int8"),
        ("denoise_fn.extra", np.zeros(2), r"denoise_fn.extra in SR3's .* is unknown: .* found one of shape \(2,\)"),
        ("imnet.layers.0.weight", np.zeros(2), "imnet.layers.0.weight in SR3's .* is unknown"),
    ],
)
def test_another_sr3_is_one_clear_sentence(sr3, key, value, match):
    state = arrays(sr3)
    state.pop(key, None)
    if value is not None:
        state[key] = value
    with pytest.raises(UserError, match=match):
        diffusers_layout.load_sr3(state, num_groups=4)


HEAD, MLP = "encoder.head.0.weight", "denoise_fn.ups.2.imnet.0.weight"
LAST = "encoder.body.1.body.2.bias"


@pytest.mark.parametrize(
    "key, value, match",
    [
        (HEAD, None, f"IDM's state dict lacks {HEAD}"),
        (MLP, None, f"IDM's state dict lacks {MLP}"),
        (LAST, None, rf"lacks {LAST}: expected an array of shape \(8,\)"),
        (MLP, np.zeros((256, 30)), rf"{MLP} .*: expected shape \(256, 26\), found \(256, 30\)"),
        ("denoise_fn.conv_body_down.3.1.weight", np.zeros(2), "conv_body_down.3.1.weight in IDM's .* is unknown"),
        ("denoise_fn.condition_scale1.1.bias", None, "lacks denoise_fn.condition_scale1.1.bias"),
    ],
)
def test_another_idm_is_one_clear_sentence(idm, key, value, match):
    state = arrays(idm)
    state.pop(key, None)
    if value is not None:
        state[key] = value
    with pytest.raises(UserError, match=match):
        diffusers_layout.load_idm(state, num_groups=4)


def test_an_idm_is_no_sr3(idm, sr3):
    with pytest.raises(UserError, match="lacks denoise_fn.ups.2.conv.weight"):
        diffusers_layout.load_sr3(arrays(idm), num_groups=4)
    with pytest.raises(UserError, match="lacks denoise_fn.ups.2.imnet.0.weight"):
        diffusers_layout.load_idm(arrays(sr3), num_groups=4)


def test_loaded_weights_are_copies_of_all(idm):
    _, params = diffusers_layout.load_idm(arrays(idm), num_groups=4)
    flat = traverse_util.flatten_dict(params)
    assert all(x.dtype == np.float32 and x.flags.c_contiguous and x.flags.owndata for x in flat.values())
