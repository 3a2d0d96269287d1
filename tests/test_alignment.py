"""Alignment: inversion, both paths, their losses, renders of every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from recipes import ALPHA_BAR, KEY, assert_close, assert_gradients_close, build, sgd_step, tiny, wide
from toys import random_weights

from arbiscale_jax import diffusion, models, perceptual
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.random import fold_name
from arbiscale_jax.training.stages import adversary, build_stage, latent, stage

pytestmark = pytest.mark.usefixtures("one_device")


def test_ddim_comes_back_from_its_inversion_the_closer_the_more_steps():
    mean, std = 0.7, 0.6  # of the data

    def eps_fn(z_t, t):  # E[eps | z_t] for z_0 ~ N(mean, std^2)
        a = jnp.asarray(ALPHA_BAR, jnp.float32)[t][:, None, None, None]
        return (z_t - jnp.sqrt(a) * mean) * jnp.sqrt(1 - a) / (a * std**2 + 1 - a)

    z_0 = mean + std * jax.random.normal(KEY, (4, 8, 8, 2))
    errors = []
    for steps in (10, 50, 200):
        z_T = diffusion.ddim_inversion(eps_fn, z_0, ALPHA_BAR, steps=steps)
        back = diffusion.sample(eps_fn, z_T, ALPHA_BAR, steps=steps)
        errors.append(float(jnp.linalg.norm(back - z_0) / jnp.linalg.norm(z_0)))
    print("relative error of inversion and DDIM at 10, 50, 200 steps:", errors)
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 0.02
    start_level = ALPHA_BAR[diffusion.ddim_times(200, 1000)[-1]]  # the noise of the data itself: standard normal
    assert float(jnp.std(z_T)) == pytest.approx(np.sqrt(start_level * std**2 + 1 - start_level), rel=0.05)


def test_the_inversion_can_end_below_a_time():
    z_0 = jax.random.normal(KEY, (1, 4, 4, 1))
    z_t = diffusion.ddim_inversion(lambda z, t: jnp.zeros_like(z), z_0, ALPHA_BAR[:300], steps=3)
    np.testing.assert_allclose(z_t, np.sqrt(ALPHA_BAR[201] / ALPHA_BAR[0]) * z_0, rtol=1e-5)  # times 1, 101, 201


REVERSE = {"loss.align_mode": "reverse_ddim", "loss.align_steps": 2, "loss.align_t0": 600}


def test_a_reverse_path_updates_at_every_point_and_detaches_between():
    net, params, frozen, batch = build(tiny("align", **REVERSE), 2)
    times = (301, 1)
    key, unet = jax.random.fold_in(KEY, 0), latent.build_nets(tiny("align")).unet
    predict, weights, losses = jax.jit(lambda w, *args: unet.apply({"params": w["unet"]}, *args)), params, []
    value_and_grad = jax.jit(jax.value_and_grad(net.path.loss_fn, has_aux=True))
    point = jax.jit(net.path.begin)(params, frozen, batch, key)
    z_0 = point["z_0"]
    for i, t in enumerate(times):
        a = ALPHA_BAR[t]
        eps_hat = predict(weights, point["z_t"], jnp.full(2, t), point["c"])
        z_0_hat = (point["z_t"] - np.sqrt(1 - a) * eps_hat) / np.sqrt(a)
        (loss, (metrics, point)), grads = value_and_grad(weights, frozen, batch, key, point, i)
        np.testing.assert_allclose(metrics["dm"], a / (1 - a) * np.mean((z_0 - z_0_hat) ** 2), rtol=1e-3)  # Eq. 8
        a_s = ALPHA_BAR[times[i + 1]] if i < 1 else ALPHA_BAR[0]
        np.testing.assert_allclose(point["z_t"], np.sqrt(a_s) * z_0_hat + np.sqrt(1 - a_s) * eps_hat, atol=1e-4)
        weights = jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads)
        losses.append(loss)
    found, metrics = sgd_step(net, params, frozen, batch)
    assert_close(found, weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-4)


SAMPLING = {"loss.align_mode": "sampling", "loss.align_steps": 2, "loss.weight_cap": 2.0, "model.sampling.steps": 2}


@pytest.mark.parametrize("begin", [0.0, 0.3])
def test_the_path_of_sampling_is_the_one_that_sampling_takes(begin):
    config = tiny("align", **SAMPLING, **{"model.sampling.start": begin})
    net, params, frozen, batch = build(config, 2)
    nets, key = latent.build_nets(config), jax.random.fold_in(KEY, 0)
    point, losses = jax.jit(net.path.begin)(params, frozen, batch, key), []
    z_T, c, z_0 = point["z_t"], point["c"], point["z_0"]
    if not begin:
        assert abs(float(jnp.mean(z_T))) < 0.2 and abs(float(jnp.std(z_T)) - 1) < 0.2
    path = diffusion.ddim_trajectory(2, ALPHA_BAR, begin or 1.0)
    step = jax.jit(net.path.loss_fn)
    for i in range(2):
        z_t = point["z_t"]
        loss, (metrics, point) = step(params, frozen, batch, key, point, i)
        eps_hat = nets.unet.apply({"params": params["unet"]}, z_t, jnp.full(2, path.t[i]), c)
        a = path.alpha_bar[i]
        error = np.mean((z_0 - diffusion.predict_z_0(z_t, eps_hat, jnp.full(2, path.t[i]), ALPHA_BAR)) ** 2)
        np.testing.assert_allclose(metrics["dm"], min(a / (1 - a), 2.0) * error, rtol=1e-3)  # Eq. 8 under the cap
        losses.append(loss)

    def eps_fn(z_t, t):
        return nets.unet.apply({"params": params["unet"]}, z_t, t, c)

    sampled = diffusion.sample(eps_fn, z_T, ALPHA_BAR, steps=2, start=begin or 1.0)
    np.testing.assert_allclose(point["z_t"], sampled, atol=1e-4)
    if not begin:
        return  # one training step along a path is enough
    found, metrics = sgd_step(net, params, frozen, batch)
    assert not np.allclose(found["unet"]["conv_out"]["bias"], params["unet"]["conv_out"]["bias"])
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=0.2)  # the weights change along the path


def test_a_discriminator_on_the_path_equals_its_definition(tiny_lpips):
    fields = {"loss.align_disc_weight": 0.7, "loss.align_lpips_weight": 0.1, "model.sampling.start": 0.3}
    config = wide("align", **SAMPLING, **fields)
    net, params, frozen, batch = build(config, 2)
    nets, key, judge = latent.build_nets(config), jax.random.fold_in(KEY, 0), models.PatchDiscriminator(4, 2)
    disc = random_weights(jax.eval_shape(net.critic.init, KEY)["params"])
    point = jax.jit(net.path.begin)(params, frozen, batch, key)
    t, c = diffusion.ddim_trajectory(2, ALPHA_BAR, 0.3).t[1], point["c"]
    snr, x = min(ALPHA_BAR[t] / (1 - ALPHA_BAR[t]), 2.0), batch["target"]

    def x_hat(params):
        eps_hat = nets.unet.apply({"params": params["unet"]}, point["z_t"], jnp.full(2, t), c)
        z_0_hat = diffusion.predict_z_0(point["z_t"], eps_hat, jnp.full(2, t), ALPHA_BAR) / frozen["scale_factor"]
        return stage.render_window(nets.first_stage, frozen["first_stage"], z_0_hat, batch)

    def rec(x_hat):
        lpips = perceptual.lpips(tiny_lpips, x_hat, x)
        return snr * jnp.mean(jnp.mean((x_hat - x) ** 2, axis=(1, 2, 3)) + 0.1 * lpips)

    def g(x_hat):
        return -snr * jnp.mean(judge.apply({"params": disc}, x_hat))

    def d(disc, x_hat):
        real, fake = (judge.apply({"params": disc}, image) for image in (x, x_hat))
        return adversary.discriminator_loss(real, fake)

    @jax.jit
    def by_definition(params):
        render = x_hat(params)
        weight = jnp.linalg.norm(jax.grad(rec)(render)) / (jnp.linalg.norm(jax.grad(g)(render)) + 1e-4)
        plain = jax.value_and_grad(lambda p: net.path.loss_fn(p, frozen, batch, key, point, 1)[0])(params)
        adv = jax.value_and_grad(lambda p: 0.7 * weight * g(x_hat(p)))(params)
        return weight, jax.tree.map(jnp.add, plain, adv), jax.value_and_grad(d)(disc, render)

    weight, (loss, to_params), (d_loss, to_disc) = by_definition(params)
    step = jax.jit(jax.value_and_grad(net.path.loss_fn, argnums=(0, 6), has_aux=True))
    (total, (metrics, _)), grads = step(params, frozen, batch, key, point, 1, disc)
    found = [metrics["adaptive_weight"], metrics["loss"], metrics["d"], total]
    np.testing.assert_allclose(found, [weight, loss, d_loss, loss + d_loss], rtol=1e-4)
    for found, expected in zip(grads, (to_params, to_disc), strict=True):
        assert_gradients_close(found, expected)


def test_the_posterior_sample_the_noise_and_the_dropout_are_drawn_apart():
    config = tiny("diffusion", **{"model.first_stage.double_z": True})
    net, params, frozen, batch = build(config, 2)
    nets = latent.build_nets(config)
    mean, log_var = latent.posterior(nets, frozen, batch)
    out = latent.predict(nets, params, frozen, batch, KEY, jnp.array([500, 500]), train=True)
    drawn = (out.z_0 / frozen["scale_factor"] - mean) / jnp.exp(0.5 * log_var)
    assert drawn.size >= 1000 and abs(np.corrcoef(drawn.ravel(), out.eps.ravel())[0, 1]) < 0.1
    keys = [fold_name(KEY, name) for name in ("z_0", "eps", "dropout", "strength", "t", "look", "look_true", "point")]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("size, perceptual_weight", [("target", 0.5), ("image", 0), ("latent", 0)])
def test_the_alignment_loss_at_every_render_size(size, perceptual_weight, tiny_lpips):
    fields = {
        "loss.render_size": size,
        "loss.align_lpips_weight": perceptual_weight,
        "model.first_stage.ch_mult": (1, 1),
    }
    config = wide("align", **fields, **{"loss.weight_cap": 2.0, "loss.lambda_dm": 0.5, "loss.lambda_recon": 3.0})
    net, params, frozen, batch = build(config, 2)
    nets, key = latent.build_nets(config), KEY

    def draw(key):
        return jax.random.randint(fold_name(key, "any"), (), 0, 1000)

    t = jax.vmap(draw)(stage.example_keys(fold_name(KEY, "t"), batch))

    @jax.jit
    def by_hand(params):
        out = latent.predict(nets, params, frozen, batch, key, t, train=True)
        z = diffusion.predict_z_0(out.z_t, out.estimate.eps_hat, t, ALPHA_BAR) / frozen["scale_factor"]
        if size == "target":
            return out, stage.render_window(nets.first_stage, frozen["first_stage"], z, batch)
        side = {"image": 16, "latent": 8}[size]
        return out, stage.render_whole(nets.first_stage, frozen["first_stage"], z, side)

    out, x_hat = by_hand(params)
    x = np.array(batch["target" if size == "target" else "image"])
    if size == "latent":
        planes = (Image.fromarray(plane) for plane in np.moveaxis(x, 3, 1).reshape(-1, 16, 16))
        planes = [np.asarray(plane.resize((8, 8), Image.Resampling.BICUBIC)) for plane in planes]
        x = np.moveaxis(np.reshape(planes, (2, 3, 8, 8)), 1, 3)
    weight = np.minimum(ALPHA_BAR[t] / (1 - ALPHA_BAR[t]), 2)
    recon = np.mean((x_hat - x) ** 2, axis=(1, 2, 3))
    distance = jax.jit(perceptual.lpips)(tiny_lpips, x_hat, x) if perceptual_weight else 0
    l_recon = np.mean(weight * (recon + perceptual_weight * distance))
    expected = 0.5 * np.mean((out.eps - out.estimate.eps_hat) ** 2) + 3 * l_recon
    loss, metrics = jax.jit(net.loss_fn)(params, frozen, batch, KEY)
    np.testing.assert_allclose(metrics["recon"], np.mean(weight * recon), rtol=1e-3)
    np.testing.assert_allclose(loss, expected, rtol=1e-3)


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("first_stage", {"loss.lpips_weight": 1.0}, "lpips_net=alex needs rendered windows of at least 31 .* got 8"),
        ("first_stage", {"loss.lpips_weight": -1.0}, "loss.lpips_weight must be at least 0, got -1.0"),
        ("first_stage", {"loss.disc_weight": 1.0}, "disc_layers=3 needs data.target_patch of at least 24, got 8"),
        ("first_stage", {"loss.disc_weight": 1, "loss.disc_net": "unet"}, "disc_net=unet needs .* at least 16, got 8"),
        ("first_stage", {"loss.disc_net": "vit"}, "loss.disc_net is one of patch, unet, got 'vit'"),
        ("align", {"loss.disc_loss": "lsgan"}, "loss.disc_loss is one of hinge, logistic, got 'lsgan'"),
        ("first_stage", {"loss.disc_weight": float("nan")}, "loss.disc_weight must be at least 0, got nan"),
        ("align", {"loss.render_size": "huge"}, "render_size is one of target, image, latent, got 'huge'"),
        ("align", REVERSE | {"loss.align_t0": 1001}, r"align_t0 lies in \[2, 1000\]"),
        ("align", REVERSE | {"loss.align_steps": 601}, r"align_steps lies in \[1, 600\]"),
        ("align", SAMPLING | {"model.sampling.start": 0.3, "loss.align_steps": 301}, r"align_steps lies in \[1, 300\]"),
        ("align", SAMPLING | {"model.condition.enabled": False}, "align_mode=sampling needs super-resolution"),
        ("align", {"loss.align_disc_weight": 0.1, "loss.disc_layers": 1}, "align_disc_weight needs a path"),
    ],
)
def test_recipes_that_cannot_be_are_refused(name, fields, message, tiny_lpips):
    with pytest.raises(UserError, match=message):
        build_stage(tiny(name, **fields))
