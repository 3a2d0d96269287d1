"""The restoring model's training: its stages at toy size, what alignment trains, what the U-Net is told."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import leaves_equal, random_weights

import arbiscale_jax as aj
from arbiscale_jax import UserError, diffusion, models, perceptual
from arbiscale_jax.artifacts import storage
from arbiscale_jax.data import synthesis
from arbiscale_jax.experiments import get_restoring_config
from arbiscale_jax.models.local import LocalUNet
from arbiscale_jax.training import start, train
from arbiscale_jax.training.stages import appearance, build_stage, image_losses, latent, stage
from arbiscale_jax.training.step import stream

pytestmark = pytest.mark.usefixtures("one_device")
KEY, LEVELS = jax.random.key(3), (0.0, 0.25, 0.5, 0.75, 1.0)  # of restore


@pytest.fixture(autouse=True)
def tiny_lpips(monkeypatch):
    """Stands for VGG16's weights with random ones of four channels, so that the package is not needed."""
    rng = np.random.default_rng(1)
    convs = tuple((np.float32(rng.normal(size=(3, 3, c, 4)) / 3), np.zeros(4, np.float32)) for c in (3, *[4] * 12))
    weights = perceptual.Lpips("vgg", convs, tuple(np.ones(4, np.float32) for _ in range(5)))
    monkeypatch.setattr(stage, "load_lpips", lambda net: weights)


def tiny(name, variants=((16, 36, 2.5, 3.0, 0.5), (16, 40, 3.0, 4.0, 0.5)), **fields):
    config = get_restoring_config(name).unlock()
    config.model.first_stage.update(ch=8, num_res_blocks=1)
    config.model.first_stage.subcell.update(blocks=1, features=6, convs=1)
    config.model.liif.hidden = (8, 8)
    config.model.unet.model_channels = 8
    config.data.update(source="embedded", root="", image_size=64, lr_size=16, val_num=2)
    config.data.update(target_min=40, target_max=64, target_patch=40)
    config.data.synthesis.update(tile=96, tiles_per_image=1, lettered=1)
    config.loss.update(disc_ch=4, lpips_shift=3)
    config.train.update(batch_size=4, steps=2, minutes=0.0, warmup_steps=1, log_every=1, checkpoint_every=0)
    with config.ignore_type():
        config.model.unet.num_res_blocks, config.model.unet.channel_mult = (1, 1), (1, 1.5)
        config.data.synthesis.variants = variants
        config.update_from_flattened_dict(fields)
    return config.lock()


def batch_of(config, num=4):
    variants, settings = synthesis.from_config(config.data)
    store = jax.tree.map(jnp.asarray, synthesis.store_from_config(config.data))
    settings = settings._replace(clean=0.5, light=0.0, heavy=0.5)
    make = jax.jit(lambda store: synthesis.make_batch(KEY, store, variants[0], num, settings))  # one program, not 600
    return make(store)


def test_a_run_on_made_examples_resumes_bit_for_bit(tmp_path):
    """A step of one variant and one of the other equal both in a row."""
    plain = {"loss.lpips_weight": 0.0, "train.schedule": "constant"}
    for name, steps in (("whole", (2,)), ("parts", (1, 2))):
        for n in steps:
            train(tiny("first_stage", **plain, **{"train.steps": n}), tmp_path / name)
    assert leaves_equal(*(storage.read_weights(tmp_path / name) for name in ("whole", "parts")))


@pytest.fixture(scope="module")
def built():
    """The alignment without a discriminator: stage, weights that all take part, a batch."""
    config = tiny("align", variants=((16, 40, 3.0, 4.0, 1.0),), **{"loss.align_disc_weight": 0.0})
    patch = pytest.MonkeyPatch()
    patch.setattr(stage, "load_lpips", lambda net: perceptual.Lpips("vgg", (), ()))
    patch.setattr(stage, "perceptual_loss", lambda nets, x_hat, x, dtype: jnp.mean((x_hat - x) ** 2, axis=(1, 2, 3)))
    net, batch = build_stage(config), batch_of(config)
    params, frozen = start.split(random_weights(jax.eval_shape(net.init, KEY, batch)), net.trained)
    frozen = {**frozen, "scale_factor": jnp.float32(0.8), "lpips": net.lpips}
    yield config, net, params, frozen, batch
    patch.undo()


def test_alignment_is_its_definition(built):
    """One evaluation from noise, L1 and looks of the render, and the same of the true latent's render."""
    config, net, params, frozen, batch = built
    nets, loss, key = latent.build_nets(config), config.loss, KEY
    assert set(net.trained) == {"unet", "first_stage/decoder", "first_stage/liif"} and net.path.updates == 1

    @jax.jit
    def run(params):
        point = net.path.begin(params, frozen, batch, key)
        total, (metrics, _) = net.path.loss_fn(params, frozen, batch, key, point, 0)
        return total, metrics, point

    total, metrics, point = run(params)
    weights = stage.first_stage_params(params, frozen)
    t = jnp.full(4, 999)
    assert point["z_t"].shape == (4, 16, 16, 24) and point["strength"].shape == (4,)

    def ask(z):
        x_hat, x = stage.render_window(nets.first_stage, weights, z, batch, nets.finer), batch["target"]
        total = image_losses.l1(x_hat, x) + loss.coarse_weight * image_losses.coarse_l1(x_hat, x)
        return total + loss.spectrum_weight * image_losses.spectrum_loss(x_hat, x), jnp.mean(image_losses.l1(x_hat, x))

    @jax.jit
    def by_definition(point):
        told = {"strength": point["strength"]}
        z = latent.estimate(nets, params["unet"], point["z_t"], t, point["c"], told=told).z_0_hat
        return ask(z / 0.8), ask(latent.posterior(nets, frozen, batch)[0])

    (of_answer, recon), (of_true, _) = by_definition(point)
    without_lpips = metrics["loss"] - loss.align_lpips_weight * metrics["lpips"]
    shifted = loss.align_true_weight * (metrics["true"] - jnp.mean(of_true))  # what LPIPS adds to the true latent's
    np.testing.assert_allclose(metrics["recon"], recon, rtol=1e-4)
    np.testing.assert_allclose(
        without_lpips, jnp.mean(of_answer) + loss.align_true_weight * jnp.mean(of_true) + shifted, rtol=1e-4
    )
    assert float(metrics["true"]) > float(jnp.mean(of_true)) and total == metrics["loss"]


def test_half_of_the_examples_know_their_damage(built):
    config, _, _, _, batch = built
    nets = latent.build_nets(config)
    many = {name: jnp.concatenate([x] * 16) for name, x in batch.items()}
    told = latent.told(nets, many, KEY, train=True)["strength"]
    known = told >= 0
    assert 0.3 < float(jnp.mean(known)) < 0.7
    np.testing.assert_array_equal(told[known], many["strength"][known])
    assert latent.told(nets._replace(told=False), many, KEY, train=True) == {}
    unknown = latent.told(nets, {"image": batch["image"]}, KEY, train=True)["strength"]
    np.testing.assert_array_equal(unknown, -np.ones(4))


def test_the_loss_of_z_0_is_its_error(built):
    config, _, params, frozen, batch = built
    nets = latent.build_nets(config)
    predict = jax.jit(lambda params, t: latent.predict(nets, params, frozen, batch, KEY, t, train=False))
    out = predict(params, jnp.array([0, 10, 500, 999]))
    np.testing.assert_allclose(out.dm, np.mean((out.estimate.z_0_hat - out.z_0) ** 2, axis=(1, 2, 3)), rtol=1e-5)
    back = diffusion.predict_z_0(out.z_t, out.estimate.eps_hat, jnp.array([0, 10, 500, 999]), nets.alpha_bar)
    np.testing.assert_allclose(back, out.estimate.z_0_hat, atol=2e-3)


def test_renders_of_small_scales_are_finer_in_training_too():
    config = tiny("first_stage")
    assert stage.finer_factors(config) == {(64, 36): 2, (64, 40): 1}
    batch = batch_of(config)
    net = models.build_first_stage(config.model)
    weights = jax.jit(lambda key: stage.init_first_stage(net, key, batch))(KEY)
    z = jax.jit(lambda x: net.apply({"params": weights}, x, method="posterior")[0])(batch["image"])
    found = jax.jit(lambda z: stage.render_window(net, weights, z, batch, stage.finer_factors(config)))(z)
    model = aj.Model(config.model.to_dict(), {"first_stage": weights})
    for i in range(2):  # what sampling renders; the window lies inside, away from the picture's edges
        size, place = int(batch["target_size"][i]), np.asarray(batch["target_start"][i])
        model.border = 0
        if size / 16 >= 3:
            continue
        expected = model.decode(z[i : i + 1], (size, size), (*map(int, place), 36, 36))[0]
        np.testing.assert_allclose(found[i], expected, atol=1e-3)
    assert np.abs(found - batch["target"]).mean() < 0.1  # the linear code


@pytest.mark.parametrize(
    "fields, match",
    [
        ({"loss.align_true_weight": 0.0}, "learn to sharpen instead of to decode"),
        ({"loss.align_norm": "l3"}, "loss.align_norm is one of l2, l1, got 'l3'"),
        ({"loss.align_weight": "t"}, "loss.align_weight is one of snr, one, got 't'"),
        ({"loss.coarse_weight": -1.0}, "loss.coarse_weight must be at least 0"),
        ({"data.synthesis.variants": ((16, 24, 2.0, 3.0, 1.0),)}, "at least 32 pixels per side, got 24"),
        ({"loss.disc_net": "vit"}, "loss.disc_net is one of patch, unet, got 'vit'"),
    ],
)
def test_impossible_values_are_one_sentence(fields, match):
    with pytest.raises(UserError, match=match):
        build_stage(tiny("align", **fields))


def test_what_lpips_sees_is_shifted_and_turned_alike():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 20, 20, 3)), jnp.float32)
    config = tiny("align", **{"loss.lpips_shift": 4, "loss.spectrum_weight": 0.0})
    seen = []
    patch = pytest.MonkeyPatch()
    patch.setattr(stage, "perceptual_loss", lambda nets, a, b, dtype: seen.append((a, b)) or jnp.zeros(2))
    looks = appearance.make_appearance(config, 1.0)
    for i in range(12):
        looks.terms((), x, x + 1, jax.random.key(i))
    patch.undo()
    assert {a.shape for a, _ in seen} == {(2, 16, 16, 3)}
    for a, b in seen:
        np.testing.assert_allclose(b - a, 1, atol=1e-5)  # both alike
    assert len({float(a[0, 0, 0, 0]) for a, _ in seen}) > 4


def test_less_noise_is_left_the_more_is_restored():
    """A tiny U-Net learns, from the strength that it is told, how much of the condition is noise."""
    unet = LocalUNet(2, model_channels=8, channel_mult=(1,), num_res_blocks=(1,), num_groups=1, emb_channels=8)
    t, empty = jnp.full(16, 999), jnp.zeros((16, 8, 8, 2))
    params, tx = jax.jit(unet.init)(KEY, empty, t, empty, None, t / 999.0), optax.adam(1e-2)

    @jax.jit
    def answer(params, c, strength):
        return unet.apply(params, empty, t, c, None, strength)

    @jax.jit
    def step(params, state, key):
        keys = jax.random.split(key, 3)
        detail, noise = (jax.random.normal(k, empty.shape) for k in keys[:2])
        strength = jax.random.uniform(keys[2], (16,))
        c = 0.5 * detail + strength[:, None, None, None] * noise
        grads = jax.grad(lambda p: jnp.mean((answer(p, c, strength) - 0.5 * detail) ** 2))(params)
        changes, state = tx.update(grads, state)
        return optax.apply_updates(params, changes), state

    state = tx.init(params)
    for key in jax.random.split(stream(0, "train"), 250):
        params, state = step(params, state, key)
    detail, noise = (jax.random.normal(jax.random.key(i), empty.shape) for i in (8, 9))
    seen = [[answer(params, c, jnp.full(16, r)) for c in (0.5 * detail + 0.3 * noise, 0.5 * detail)] for r in LEVELS]
    left = [float(jnp.std(noisy - clean)) for noisy, clean in seen]
    assert np.all(np.diff(left) < 0) and left[0] > 0.2 and left[-1] < 0.5 * left[0]
