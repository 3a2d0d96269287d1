"""Windows of pictures that share the statistics of group normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arbiscale_jax as aj
from arbiscale_jax import models
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.inference import engine, rendering, tiles, windows
from arbiscale_jax.inference.latents import Job, upscale
from arbiscale_jax.inference.options import resolve
from arbiscale_jax.inference.plan import make_plan

KEY = jax.random.key(3)
Y, X = np.mgrid[:40, :72]
PICTURE = np.stack([40 + 2 * X + 60 * ((X + Y) % 3 == 0) * (X < 36), 200 - 3 * Y, 90 + 0 * X + 50 * (X % 5 == 0)], -1)
PICTURE = PICTURE.clip(0, 255).astype(np.uint8)  # texture on the left only: statistics of windows differ


@pytest.fixture(scope="module")
def model():
    """Random weights that all take part, norms of few groups, and no attention, as in the bundled model of photos."""
    config = get_base_config().model
    config.first_stage.update(ch=8, ch_mult=(1, 2), num_groups=1, num_res_blocks=1, mid_attention=False, z_channels=3)
    config.liif.hidden = (16, 16)
    config.unet.update(model_channels=8, channel_mult=(1, 2), num_groups=2, num_res_blocks=1, attention_rates=())
    config.unet.update(mid_attention=False, num_heads=1, num_head_channels=0)
    config.condition.update(enabled=True, upsampling=4.0)
    config.sampling.update(steps=2, start=0.3, refine=1, border=2)
    config = config.to_dict()
    net, unet, cells = models.build_first_stage(config), models.build_unet(config), models.axis(1, 1)
    first = jax.jit(net.init)(KEY, jnp.zeros((1, 8, 8, 3)), cells, cells)["params"]
    z = jnp.zeros((1, 4, 4, 3))
    later = jax.jit(unet.init)(KEY, z, jnp.zeros(1, jnp.int32), z)["params"]
    later["conv_out"]["kernel"] = 0.1 * jax.random.normal(KEY, later["conv_out"]["kernel"].shape)
    return aj.Model(config, {"first_stage": first, "unet": later})


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(windows, "DEAD", 8)
    monkeypatch.setattr(windows, "RAMP", 8)


def distance(a, b):
    return np.sqrt(np.mean((a - b) ** 2)) / b.std()


def test_windows_that_share_statistics_are_near_one_pass(model):
    numbers, errors, done = (0, 2), {}, []

    def answers(statistics, most, images=(PICTURE,), progress=None):
        options = resolve(model.config, {"statistics": statistics})
        return dict(upscale(model.engine, Job(images, numbers, options, 0, progress), most))

    one = answers("whole", 500)[0]
    for statistics in models.STATISTICS:
        found = answers(statistics, 32, (PICTURE, PICTURE[:, :40]), lambda *now: done.append(now))
        assert found[0].shape == one.shape == (2, 80, 144, 3) and found[1].shape == (2, 80, 80, 3)
        errors[statistics] = distance(found[0], one)
    assert errors["whole"] < 0.5 * errors["window"], errors
    count = len(make_plan(model.config, resolve(model.config, {}), 32).cut(76))  # windows
    passes = count * (2 + 2 * (2 * 2 + 3))  # for two answers the U-Net in two steps, and back-projection
    small = 2 * (1 + 2 + 1)  # the picture of one window: the condition, the U-Net in two steps, and back-projection
    assert count > 2 and done[passes + small - 1] == (passes + small,) * 2 and done[-1] == ((count + 1) * small,) * 2


def test_windows_in_batches_over_devices_are_those_made_one_by_one(model, monkeypatch):
    """Windows of one size in batches of two on two devices, as on accelerators; one at a time on a CPU."""
    job, sizes = Job([PICTURE], [1], resolve(model.config, {}), 0), set()
    [(_, alone)] = upscale(model.engine, job, 32)
    monkeypatch.setattr(engine, "CELLS_AT_ONCE", {"cpu": 2**18})
    spread = engine.spread(model.engine, jax.devices())

    def put(tree):
        found = spread.put(tree)
        sizes.update((len(x), len(x.sharding.device_set)) for x in jax.tree.leaves(found))
        return found

    [(_, together)] = upscale(spread._replace(put=put), job, 32)
    assert sizes == {(2, 2)}
    np.testing.assert_allclose(together, alone, atol=2e-4)


def test_blocks_of_d_that_share_statistics_are_near_one_pass(model):
    z = np.array(jax.random.normal(KEY, (76, 60, 3)))
    z[:, 30:] = 0.5
    view = tiles.View((150, 121), (0, 0, 150, 121), "float32")

    def render(view, most):
        renderer = rendering.Renderer(model.engine, z, view, most)
        assert (len(renderer.rows) * len(renderer.cols) > 1) == (most is not None)
        return np.concatenate([rows for _, rows in renderer.bands()])

    one = render(view, None)
    errors = {how: distance(render(view._replace(statistics=how), 32), one) for how in models.STATISTICS}
    assert errors["whole"] < 0.5 * errors["window"], errors
    part = render(view._replace(box=(70, 40, 20, 30)), 32)
    np.testing.assert_array_equal(part, render(view, 32)[70:90, 40:70])


def test_moments_of_parts_are_those_of_the_whole():
    norm = models.layers.GroupNorm(2, 1e-6)
    x = 50 + jax.random.normal(jax.random.key(1), (1, 6, 8, 4))  # an offset, where one pass would lose digits
    params, inside = norm.init(jax.random.key(0), x), np.arange(8) < 3
    masks = [np.broadcast_to(mask, (1, 6, 8)) for mask in (inside, ~inside)]
    parts = []
    for mask in masks:
        with models.shared_moments(counted=mask) as found:
            norm.apply(params, x)
        parts.append(jax.device_get(found))
    shared, plain = models.combine(parts), models.layers.group_moments(x, 2)
    [name] = shared
    np.testing.assert_allclose(shared[name].mean, plain.mean, rtol=1e-6)
    np.testing.assert_allclose(shared[name].variance, plain.variance, rtol=1e-4)
    assert shared[name].count == 48
    with models.shared_moments(shared) as found:
        np.testing.assert_allclose(norm.apply(params, x), norm.bind(params)(x), atol=2e-4)
        half = norm.apply(params, x[:, :, :3])
    assert not found
    np.testing.assert_allclose(half, norm.apply(params, x)[:, :, :3], atol=2e-4)
