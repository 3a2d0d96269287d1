"""The networks: sizes as published, the renderer against its definition, attention and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arbiscale_jax import models
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.models import layers, liif, unet


def count(module, *args):
    params = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
    return {k: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(v)) for k, v in params.items()}


def published(first_stage=(), unet=()):
    config = get_base_config().model.to_dict()
    config["first_stage"].update(first_stage)
    config["unet"].update(unet)
    return config


FACES = dict(double_z=True, z_channels=32, resolution=128, attn_resolutions=(16,))
TOWERS = dict(double_z=True, z_channels=32, ch_mult=(1, 2, 4, 4))


@pytest.mark.parametrize(
    "first_stage, counts",
    [(FACES, (22_622_720, 30_141_856)), ({}, (22_337_423, 30_007_180)), (TOWERS, (34_425_856, 44_306_848))],
    ids=["faces", "wild", "towers"],
)
def test_first_stages_have_the_published_parameter_counts(first_stage, counts):
    config = published(first_stage)
    window, side = models.axis(4, 4), 4 * models.spatial_factor(config)
    found = count(models.build_first_stage(config), jnp.zeros((1, side, side, 3)), window, window)
    assert found == dict(zip(("encoder", "decoder", "liif"), (*counts, 232_195), strict=True))


@pytest.mark.parametrize(
    "first_stage, unet, conditional, total",
    [
        (FACES, dict(model_channels=256, channel_mult=(1, 2, 4, 4), attention_rates=(4, 2, 1)), True, 411_075_104),
        ({}, {}, True, 113_622_563),
        ({}, dict(attention_rates=(12, 6)), True, 105_411_363),
        ({}, dict(model_channels=224, channel_mult=(1, 2, 3, 4), attention_rates=(8, 4, 2)), False, 274_056_163),
        (
            dict(z_channels=4),
            dict(
                model_channels=192,
                channel_mult=(1, 2, 2, 4, 4),
                attention_rates=(1, 2, 4, 8),
                num_heads=8,
                num_head_channels=0,
                scale_shift=True,
                resblock_updown=True,
            ),
            False,
            294_966_916,
        ),
    ],
    ids=["faces", "div2k", "df2k", "ffhq", "church"],
)
def test_unets_have_the_published_parameter_counts(first_stage, unet, conditional, total):
    config = published(first_stage, unet)
    z = jnp.zeros((1, 16, 16, config["first_stage"]["z_channels"]))
    found = count(models.build_unet(config), z, jnp.zeros(1, jnp.int32), z if conditional else None)
    assert sum(found.values()) == total


@pytest.mark.parametrize(
    "first_stage, attends", [(dict(attn_resolutions=(16,), resolution=32, ch_mult=(1, 2)), (0, 1)), ({}, ())]
)
def test_attention_in_the_decoder_stays_at_the_latents_nominal_resolution(first_stage, attends):
    config = published(first_stage)["first_stage"]
    assert models.attention_levels(config, "decoder") == attends
    assert models.attention_levels({**config, "decoder_attention": "doubled"}, "decoder") == attends[1:]
    assert models.attention_levels(config, "encoder") == attends[1:]


# the renderer

CASES = {
    "x1": (5, 5),
    "x2": (5, 10),
    "x3": (6, 18),
    "x3.7": (7, 26),
    "x0.6": (10, 6),
    "x0.2": (10, 2),
    "one cell": (1, 4),
}


@pytest.fixture(scope="module")
def renderer():
    module = liif.Liif(hidden=(16, 16), features=6)
    feat = jax.random.normal(jax.random.key(1), (1, 7, 10, 6))
    window = models.axis(7, 7)
    params = jax.jit(module.init)(jax.random.key(0), feat, window, window)
    return module, params


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ensemble", [True, False])
def test_the_grid_path_equals_the_per_coordinate_definition(renderer, case, ensemble):
    n, size = CASES[case]
    module, params = renderer[0].copy(local_ensemble=ensemble), renderer[1]
    feat = jax.random.normal(jax.random.key(2), (1, n, 4, 6))
    rows, cols = models.axis(n, size), models.axis(4, 9)  # not square
    fast = jax.jit(module.apply)(params, feat, rows, cols)[0]

    def spread(a, pick):
        return liif.Axis(a.index[:, pick.ravel()], a.rel[:, pick.ravel()], a.cell)

    y, x = np.indices(fast.shape[:2])
    slow = jax.jit(lambda p, f, y, x: module.apply(p, f, y, x, method="points"))(
        params, feat[0], spread(rows, y), spread(cols, x)
    )
    np.testing.assert_allclose(fast.reshape(-1, 3), slow, atol=1e-5)


@pytest.mark.parametrize("n, size", CASES.values(), ids=CASES)
def test_positions_agree_with_coordinates_over_minus_one_to_one(n, size):
    found = models.axis(n, size)
    pixels, cells = (-1 + (2 * np.arange(k) + 1) / k for k in (size, n))
    np.testing.assert_allclose(found.rel, (pixels - cells[found.index]) * n, atol=1e-6)
    np.testing.assert_allclose(found.cell, 2 / size * n, rtol=1e-6)
    on_device = jax.jit(lambda traced: models.axis(n, traced, jnp.int32(0), size, xp=jnp))(jnp.int32(size))
    np.testing.assert_array_equal(found.index, on_device.index)
    np.testing.assert_allclose(found.rel, on_device.rel, atol=2e-6)


def test_a_window_of_positions_is_a_slice_of_the_whole():
    whole, part = models.axis(7, 100), models.axis(7, 100, 31, 20)
    np.testing.assert_array_equal(part.index, whole.index[:, 31:51])
    np.testing.assert_array_equal(part.rel, whole.rel[:, 31:51])


def test_blend_weights_sum_to_one_and_a_hit_has_weight_one():
    rows, cols = models.axis(5, 15), models.axis(4, 4)
    share = np.asarray(liif.blend_weights(rows, cols))  # s s p q
    np.testing.assert_allclose(share.sum((0, 1)), 1, atol=1e-6)
    hits = share[0, 0, 1:-3:3, :-1]  # the middle of every third row, all but the last cell
    np.testing.assert_allclose(hits, 1, atol=1e-6)


@pytest.mark.parametrize("start", [0, 123_456, 199_990])
def test_neighbouring_pixels_of_a_huge_image_differ_as_float64_says(start):
    n, size = 48, 200_000
    found = models.axis(n, size, start, 9)
    u = (np.arange(start, start + 9, dtype=np.float64) + 0.5) * n / size
    np.testing.assert_allclose(found.rel[0], 2 * (u - (found.index[0] + 0.5)), atol=1e-6)
    np.testing.assert_allclose(np.diff(found.rel[0].astype(np.float64)), 2 * n / size, rtol=2e-3)


# layers


def test_attention_in_blocks_equals_attention_at_once(monkeypatch):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 50, 2, 4))
    whole = layers.attend(q, k, v)
    exact = jax.nn.softmax(jnp.einsum("bqmc,bkmc->bmqk", q, k) / 2, axis=-1)
    np.testing.assert_allclose(whole, jnp.einsum("bmqk,bkmc->bqmc", exact, v), atol=1e-6)
    monkeypatch.setattr(layers, "BLOCKED_ABOVE", 16)
    monkeypatch.setattr(layers, "BLOCK_ELEMENTS", 1500)
    np.testing.assert_allclose(layers.attend(q, k, v), whole, atol=1e-6)


def test_group_norm_is_exact_on_offset_data():
    x = 1000 + jax.random.normal(jax.random.key(0), (1, 8, 8, 8))
    norm = layers.GroupNorm(4, 1e-6)
    found = np.asarray(norm.apply(norm.init(jax.random.key(0), x), x), np.float64)
    groups = np.asarray(x, np.float64).reshape(1, 64, 4, 2)
    mean, var = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    np.testing.assert_allclose(found, ((groups - mean) / np.sqrt(var + 1e-6)).reshape(x.shape), atol=1e-4)
    with pytest.raises(ValueError, match="divisible by num_groups=3, got 8"):
        layers.GroupNorm(3, 1e-6).init(jax.random.key(0), x)


def test_the_time_embedding_has_cosines_first():
    found = unet.time_embedding(jnp.array([0, 3]), 8)
    freqs = 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(found[1], np.concatenate([np.cos(3 * freqs), np.sin(3 * freqs)]), atol=1e-6)
    np.testing.assert_array_equal(found[0], [1, 1, 1, 1, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def fresh_unet():
    """A small U-Net, compiled, and its initial weights, which are the same for every size."""
    net = models.UNet(
        3,
        model_channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_rates=(2,),
        num_head_channels=4,
        num_groups=4,
    )
    return jax.jit(net.apply), jax.jit(net.init)(jax.random.key(1), jnp.zeros((1, 2, 2, 3)), jnp.zeros(1, jnp.int32))


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 6)])
def test_the_unet_takes_any_size_and_starts_at_zero(size, fresh_unet):
    apply, params = fresh_unet
    z = jax.random.normal(jax.random.key(0), (1, *size, 3))
    assert not np.any(apply(params, z, jnp.zeros(1, jnp.int32)))
    params = jax.tree.map(lambda p: p + 0.05, params)
    out = apply(params, z, jnp.ones(1, jnp.int32))
    assert out.shape == z.shape and np.all(np.isfinite(out)) and np.any(out)
    padded = unet.pad_to_multiple(z, 2)
    np.testing.assert_array_equal(out, apply(params, padded, jnp.ones(1, jnp.int32))[:, : size[0], : size[1]])


def test_interpolation_is_pytorchs():
    x = jnp.arange(4.0).reshape(1, 1, 4, 1)

    def pick(out):
        return models.interpolate(x, (1, out), "nearest").ravel()

    np.testing.assert_array_equal(pick(10), np.arange(10) * 4 // 10)
    np.testing.assert_allclose(
        models.interpolate(x, (1, 8)).ravel(), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6
    )
    with pytest.raises(ValueError, match="bilinear, nearest, bicubic, got 'cubic'"):
        models.interpolate(x, (1, 8), "cubic")
