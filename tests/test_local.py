"""The networks without a statistic over space: the linear code, windows, anti-aliasing, what the U-Net is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toys import leaves_equal

import arbiscale_jax as aj
from arbiscale_jax import UserError, diffusion, models
from arbiscale_jax.artifacts import fit, storage
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.experiments.restoring import set_networks
from arbiscale_jax.inference import batch, rendering, tiles, to_floats
from arbiscale_jax.inference.latents import Job, upscale
from arbiscale_jax.inference.networks import Given
from arbiscale_jax.inference.options import resolve
from arbiscale_jax.inference.plan import make_piles, make_plan
from arbiscale_jax.inference.reverse_process import denoise
from arbiscale_jax.models import local, reduce

KEY, CODE = jax.random.key(5), 24  # numbers per latent cell


def tiny_config(**sampling):
    config = get_base_config().model
    set_networks(config)
    config.first_stage.update(ch=8, num_res_blocks=1)
    config.first_stage.subcell.update(blocks=1, features=6, convs=1)
    config.liif.hidden = (8, 8)
    config.unet.model_channels = 8
    with config.ignore_type():
        config.unet.num_res_blocks, config.unet.channel_mult = (1, 1), (1, 1.5)
    config.sampling.update(sampling)
    return config.to_dict()


def photograph(side=96):
    import skimage.data

    picture = Image.fromarray(skimage.data.astronaut()).crop((180, 40, 308, 168))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def model():
    """A model with random weights that all take part, on the linear code of a photograph."""
    config = tiny_config()
    net, unet = models.build_first_stage(config), models.build_unet(config)
    x, cells = jnp.asarray(photograph()[None] / 127.5 - 1, jnp.float32), models.axis(1, 1)
    first = jax.jit(net.init)(KEY, x[:, :8, :8], cells, cells)["params"]
    codes = models.linear_code(x, 4, CODE)
    given = zip(("encoder", "decoder"), codes, strict=True)
    first = {**first, **{part: {**first[part], "linear": code} for part, code in given}}
    z = jnp.zeros((1, 4, 4, CODE))
    weights = jax.jit(unet.init)(KEY, z, jnp.zeros(1, jnp.int32), z)["params"]
    kernel = weights["conv_out"]["kernel"]
    weights = {**weights, "conv_out": {"kernel": 0.02 * jax.random.normal(KEY, kernel.shape), "bias": jnp.zeros(CODE)}}
    return aj.Model(config, {"first_stage": first, "unet": weights})


# --- the linear code ---


def test_depth_to_space_undoes_space_to_depth():
    x = jax.random.normal(KEY, (2, 12, 8, 3))
    np.testing.assert_array_equal(local.depth_to_space(local.space_to_depth(x, 4), 4), x)
    np.testing.assert_array_equal(local.space_to_depth(x, 4)[1, 2, 1], x[1, 8:12, 4:8].reshape(-1))
    assert local.space_to_depth(x[:, :11, :7], 4).shape == (2, 2, 1, 48)


def test_the_linear_code_is_the_principal_components():
    x = jnp.asarray(photograph()[None] / 127.5 - 1, jnp.float32)
    patches = np.asarray(local.space_to_depth(x, 4)).reshape(-1, 48).astype(np.float64)
    mean = patches.mean(0)
    u, s, v = np.linalg.svd(patches - mean, full_matrices=False)
    for num in (3, 16, 48):
        encode, decode = jax.device_get(models.linear_code(x, 4, num))
        z = patches @ encode["kernel"][0, 0] + encode["bias"]
        back = z @ decode["kernel"][0, 0] + decode["bias"]
        best = (u[:, :num] * s[:num]) @ v[:num] + mean
        np.testing.assert_allclose(back, best, atol=2e-3)  # no linear code of so many numbers is closer
        np.testing.assert_allclose(z[:, :3].std(0), 1, atol=1e-2)  # each of unit deviation
        np.testing.assert_allclose(z.mean(0), 0, atol=2e-3)
    with pytest.raises(ValueError, match="holds 48 numbers, fewer than the 49 asked for"):
        models.linear_code(x, 4, 49)


def test_a_fresh_auto_encoder_gives_the_linear_code(model):
    """Its corrections start near zero: what it renders is what the principal components keep."""
    config, image = model.config, photograph()
    x = jnp.asarray(image[None] / 127.5 - 1, jnp.float32)
    encode, decode = jax.device_get(models.linear_code(x, 4, CODE))
    z = np.asarray(local.space_to_depth(x, 4)) @ encode["kernel"][0, 0] + encode["bias"]
    linear = local.depth_to_space(jnp.asarray(z @ decode["kernel"][0, 0] + decode["bias"]), 4)
    found = model.decode(model.encode(x), (96, 96))
    assert 10 * np.log10(4 / np.mean((linear - x) ** 2)) > 30
    assert np.abs(found - linear).mean() < 0.02 and config["first_stage"]["architecture"] == "linear_code"


def test_the_grid_of_sub_cells_equals_the_definition(model):
    net, z = models.build_first_stage(model.config), jax.random.normal(KEY, (1, 3, 5, CODE))
    params = {"params": model.params["first_stage"]}
    rows, cols = models.axis(12, 31), models.axis(20, 40)
    whole = jax.jit(lambda z: net.apply(params, z, rows, cols, method="render")[0])(z)
    y, x = (i.ravel() for i in np.mgrid[:31, :40])
    y, x = (
        models.Axis(rows.index[:, y], rows.rel[:, y], rows.cell),
        models.Axis(cols.index[:, x], cols.rel[:, x], cols.cell),
    )
    points = jax.jit(lambda z: net.apply(params, z, y, x, method="points"))(z[0])
    np.testing.assert_allclose(points.reshape(31, 40, 3), whole, atol=1e-5)
    batch = [jax.tree.map(lambda v: jnp.stack([v]), one) for one in (rows, cols)]
    features = net.apply(params, z, method="features")
    for products in (False, True):  # a gather and its product agree
        found = net.apply(params, features, *batch, products=products, method="grid")[0]
        np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("decoder, width", [("subcell", 12), ("subcell", 0), ("conv", 12)])
def test_a_decoder_of_another_kind_or_width_keeps_the_encoder(decoder, width):
    config = get_base_config().model.to_dict()
    config["first_stage"] |= dict(ch=8, ch_mult=(1, 2), num_res_blocks=1, num_groups=4, z_channels=2, double_z=True)
    config["first_stage"] |= dict(mid_attention=False)
    config["liif"]["hidden"] = (8,)
    plain = fit.network_shapes(config, "first_stage")
    config["first_stage"] |= dict(decoder=decoder, decoder_ch=width, subcell=dict(blocks=1, features=6, convs=1))
    shapes = fit.network_shapes(config, "first_stage")
    assert leaves_equal(shapes["encoder"], plain["encoder"])
    assert shapes["decoder"]["conv_in"]["kernel"].shape[-1] == (width or 8) * (1 if decoder == "subcell" else 2)
    net = models.build_first_stage(config)
    x, cells = jax.random.normal(KEY, (1, 12, 8, 3)), models.axis(6 * net.subcells, 19)
    params = net.init(KEY, x, cells, cells)
    z, _ = net.apply(params, x, method="posterior")
    features = net.apply(params, z, method="features")
    assert features.shape[1:3] == ((12, 8) if decoder == "subcell" else (6, 4)) and z.shape == (1, 6, 4, 2)
    rows, cols = models.axis(features.shape[1], 19), models.axis(features.shape[2], 19)
    whole = net.apply(params, z, rows, cols, method="render")[0]
    y, x = (np.array([i]) for i in (7, 11))
    one = (models.Axis(a.index[:, i], a.rel[:, i], a.cell) for a, i in ((rows, y), (cols, x)))
    np.testing.assert_allclose(net.apply(params, z[0], *one, method="points")[0], whole[7, 11], atol=1e-5)


# --- norms ---


def test_a_norm_of_channels_sees_its_own_position_alone():
    x = jax.random.normal(KEY, (1, 3, 4, 6)) + 2
    norm = models.layers.ChannelNorm(1e-6)
    y = norm.apply({"params": {"scale": jnp.arange(1.0, 7.0)}}, x)
    x = np.asarray(x)
    expected = x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + 1e-6) * np.arange(1, 7)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="group, channel, none, got 'batch'"):
        models.layers.make_norm("batch", 1, 1e-6, jnp.float32, "norm")


def test_every_network_takes_every_norm():
    for kind in ("group", "channel", "none"):
        config = get_base_config().model
        config.first_stage.update(ch=4, ch_mult=(1, 2), num_groups=2, num_res_blocks=1, norm=kind)
        config.unet.update(model_channels=4, channel_mult=(1, 2), num_res_blocks=1, attention_rates=(), norm=kind)
        config.unet.update(num_groups=2, num_heads=1, num_head_channels=0)
        net, unet, cells = models.build_first_stage(config), models.build_unet(config), models.axis(1, 1)
        first = jax.eval_shape(net.init, KEY, jnp.zeros((1, 8, 8, 3)), cells, cells)["params"]
        later = jax.eval_shape(unet.init, KEY, jnp.zeros((1, 4, 4, 3)), jnp.zeros(1, jnp.int32))["params"]
        keys = [key for tree in (first, later) for key in storage.flatten(tree) if "norm" in key]
        assert bool(keys) == (kind != "none")
        assert any(key.endswith("/bias") for key in keys) == (kind == "group")


# --- windows ---


def test_windows_equal_one_pass(model):
    """About 200 x 270 pixels, to within one level, in windows of the U-Net and in blocks of D."""
    image = np.asarray(Image.fromarray(photograph(128)).resize((267, 199), Image.Resampling.BICUBIC))
    job = Job([image], [0], resolve(model.config, {}), 0)
    [(_, whole)], [(_, parts)] = (upscale(model.engine, job, most) for most in (500, 96))
    plan = make_plan(model.config, job.options, 96)
    assert plan.shared and len(make_piles(model.config, plan, [image.shape])[0].sheets) >= 4
    np.testing.assert_allclose(parts, whole, atol=0.02)
    view = tiles.View((339, 454), (0, 0, 339, 454))
    one, blocks = (rendering.Renderer(model.engine, z[0], view, most) for z, most in ((whole, 500), (parts, 64)))
    assert len(one.rows) == 1 and len(blocks.rows) * len(blocks.cols) >= 12
    one, blocks = (np.concatenate([rows for _, rows in renderer.bands()]) for renderer in (one, blocks))
    assert np.abs(np.int32(one) - blocks).max() <= 1 and one.std() > 20


def test_small_pictures_share_an_array_and_get_the_values_of_their_own(model, monkeypatch):
    monkeypatch.setattr("arbiscale_jax.inference.flat_colours.find", lambda image, renderer: None)
    pictures = [photograph(40)[:h, :w] for h, w in ((40, 23), (17, 31), (9, 40), (30, 12))]
    together = dict(upscale(model.engine, Job(pictures, [0, 1], resolve(model.config, {}), 3)))
    plan = make_plan(model.config, resolve(model.config, {}))
    for i, picture in enumerate(pictures):
        more = [padded - side - 4 for padded, side in zip(plan.padded(picture.shape), picture.shape, strict=False)]
        padded = np.pad(picture, ((4, more[0]), (4, more[1]), (0, 0)), "reflect")
        lr = to_floats(padded)[None]
        networks, params = model.engine.networks, model.engine.params
        c = networks.condition(params, lr)
        assert together[i].shape == (2, *picture.shape[:2], CODE)
        cells = np.stack(np.meshgrid([1], *(np.arange(n) - 4 for n in c.shape[1:3]), indexing="ij"), axis=-1)
        given = Given(c, jnp.full(1, -1.0), cells, jax.random.key(3))
        z = denoise(model.engine, given, resolve(model.config, {}))
        np.testing.assert_allclose(together[i][1], z[0, 4 : 4 + len(picture), 4 : 4 + picture.shape[1]], atol=1e-3)
    sizes, shown = [(3 * len(picture), 2 * picture.shape[1]) for picture in pictures], {}
    for i, k, rows in model.upscale_each(pictures, sizes, 2, seed=3):  # D's arrays are shared as well
        shown[i, k] = np.concatenate(list(rows))
    assert sorted(shown) == [(i, k) for i in range(4) for k in (0, 1)]
    for (i, k), pixels in shown.items():
        own = model.render(together[i][k][None], sizes[i])[0]
        assert pixels.shape == own.shape and np.abs(np.int32(pixels) - own).max() <= 1


def test_what_lies_beyond_the_reach_changes_nothing(model):
    reach = models.reach(model.config, 1)
    side = 2 * reach + 9
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    other = image.copy()
    other[:4, :4] = 255 - other[:4, :4]
    a, b = (model.upscale_latent(x) for x in (image, other))
    features = [batch.decode_features(model.engine, z) for z in (a, b)]
    changed = np.abs(features[0] - features[1]).max((0, 3)) > 0
    assert changed[:16, :16].any() and not changed[4 * (reach + 4) :].any() and not changed[:, 4 * (reach + 4) :].any()
    assert models.reach(get_base_config().model, 1) is None


# --- anti-aliasing ---


@pytest.mark.parametrize("finer", [2, 3])
def test_reducing_a_finer_render_is_pillows_bicubic(finer):
    fine = np.random.default_rng(0).normal(size=(20 * finer, 26 * finer)).astype(np.float32)
    rows, cols = (reduce.reduction(0, n, n, finer)[:, reduce.MARGIN * finer : -reduce.MARGIN * finer] for n in (20, 26))
    pillow = Image.fromarray(fine).resize((26, 20), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(rows @ fine @ cols.T, pillow, atol=1e-5)
    inner = reduce.reduction(7, 5, 20, finer)  # a window's rows are the whole's
    np.testing.assert_allclose(inner[:, : 9 * finer], rows[7:12, 5 * finer : 14 * finer], atol=1e-6)


def test_a_small_scale_is_a_finer_render_reduced(model):
    z = jax.random.normal(KEY, (1, 24, 18, CODE))
    assert tiles.finer(model.config, (24, 18), (48, 36)) == (2, 2)
    assert tiles.finer(model.config, (24, 18), (96, 54)) == (1, 1)
    assert models.finer_factor(3.0, 100, 1) == reduce.MOST and models.finer_factor(0.0, 100, 100) == 1
    fine = model.decode(z, (96, 72))
    rows, cols = (reduce.reduction(0, n, n, 2)[:, 4:-4] for n in (48, 36))
    expected = np.einsum("ip,jq,bpqc->bijc", rows, cols, fine)
    found = model.decode(z, (48, 36))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(model.decode(z, (48, 36), (7, 20, 30, 9)), found[:, 7:37, 20:29])


# --- the U-Net ---


def test_a_fresh_unet_gives_the_condition():
    unet = models.build_unet(tiny_config())
    z_t, c = jax.random.normal(KEY, (2, 2, 5, 7, CODE))
    t = jnp.array([3, 900])
    np.testing.assert_array_equal(jax.jit(lambda: unet.apply(unet.init(KEY, z_t, t, c), z_t, t, c))(), c)


def test_sampling_from_noise_ends_at_what_the_unet_predicts(model):
    z_T, c = jax.random.normal(KEY, (2, 1, 8, 8, CODE))
    strength = jnp.full(1, -1.0)
    unet = models.build_unet(model.config)
    expected = unet.apply({"params": model.params["unet"]}, z_T, jnp.array([999]), c, strength=strength)
    np.testing.assert_allclose(model.sample(z_T, c), expected, atol=1e-3)
    eps = model.denoise(z_T, 999, c)
    np.testing.assert_allclose(diffusion.predict_z_0(z_T, eps, jnp.array([999]), model.alpha_bar), expected, atol=1e-3)


def test_restore_is_told_to_the_unet_and_checked(model, monkeypatch):
    image = photograph(24)
    a, b, c = (model.upscale_latent(image, restore=r) for r in (0, 0.5, 1.0))
    assert not np.array_equal(a, b) and not np.array_equal(b, c)
    np.testing.assert_array_equal(model.upscale_latent(image), model.upscale_latent(image, restore=None))
    for wrong in (-0.1, 1.1, float("nan"), "much", True):
        with pytest.raises(UserError, match=r"restore is a number from 0 .* to 1 .*, got"):
            model.upscale(image, scale=2, restore=wrong)
    untold = aj.Model({**model.config, "unet": {**model.config["unet"], "strength": False}}, model.params)
    with pytest.raises(UserError, match="not told how much to restore"):
        untold.upscale(image, scale=2, restore=0.5)


def test_unknown_architectures_are_named():
    config = get_base_config().model
    config.first_stage.architecture = "linear"
    with pytest.raises(ValueError, match="architecture is one of .*linear_code.*, got 'linear'"):
        models.build_first_stage(config)
    config.first_stage.update(architecture="conv", decoder="linear")
    with pytest.raises(ValueError, match="decoder is one of .*subcell.*, got 'linear'"):
        models.build_first_stage(config)
    config.unet.architecture = "flat"
    with pytest.raises(ValueError, match="architecture is one of .*local.*, got 'flat'"):
        models.build_unet(config)
    config.first_stage.decoder = "conv"
    set_networks(config)
    config.first_stage.double_z = True
    with pytest.raises(ValueError, match="no variance"):
        models.build_first_stage(config)
