"""The adversary: discriminators, their losses, the adaptive weight, in both stages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import KEY, assert_gradients_close, build, tiny, wide
from toys import leaves_equal, random_weights, toy_stage

from arbiscale_jax import models
from arbiscale_jax.artifacts import storage
from arbiscale_jax.runtime import mesh
from arbiscale_jax.runtime.progress import Report
from arbiscale_jax.runtime.random import fold_name
from arbiscale_jax.training import begin, checkpoint, reporting, run, stages, train
from arbiscale_jax.training.optimizer import optimizer_from_config
from arbiscale_jax.training.stages import adversary, stage
from arbiscale_jax.training.step import stream

pytestmark = pytest.mark.usefixtures("one_device")


def test_hinge_losses_of_hand_made_logits():
    real, fake = jnp.array([[2.0, 0.5], [-1.0, 1.0]]), jnp.array([[-2.0, 0.0], [0.5, -0.5]])
    # 1 - real: 0, 0.5, 2, 0; 1 + fake: 0, 1, 1.5, 0.5
    np.testing.assert_allclose(adversary.discriminator_loss(real, fake), 0.5 * (2.5 / 4 + 3 / 4))
    np.testing.assert_allclose(adversary.generator_loss(fake), 0.5)
    np.testing.assert_allclose(adversary.discriminator_loss(real + 9, fake - 9), 0)


def test_logistic_losses_and_the_share_of_right_signs_of_hand_made_logits():
    real, fake = jnp.array([[2.0, 0.5], [-1.0, 1.0]]), jnp.array([[-2.0, 0.0], [0.5, -0.5]])
    cost = np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp(fake)))
    np.testing.assert_allclose(adversary.discriminator_loss(real, fake, "logistic"), cost, rtol=1e-6)
    np.testing.assert_allclose(adversary.generator_loss(fake, "logistic"), np.mean(np.log1p(np.exp(-fake))), rtol=1e-6)
    assert adversary.share_right(real, fake) == (3 / 4 + 2 / 4) / 2


def test_the_patch_discriminator_equals_its_layers_in_torch():
    torch = pytest.importorskip("torch")
    net, x = models.PatchDiscriminator(ch=4, num_layers=2), jax.random.normal(KEY, (2, 17, 24, 3))
    params = jax.jit(net.init)(jax.random.key(1), x)["params"]
    params["norm_1"]["bias"] = jnp.arange(8.0)
    apply = jax.jit(net.apply)
    found = apply({"params": params}, x)

    def conv(h, name, stride):
        p = {k: torch.tensor(np.array(v)) for k, v in params[name].items()}
        kernel = p["kernel"].permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(h, kernel, p.get("bias"), stride=stride, padding=1)

    h = torch.nn.functional.leaky_relu(conv(torch.tensor(np.array(x)).permute(0, 3, 1, 2), "conv_0", 2), 0.2)
    for i, stride in ((1, 2), (2, 1)):
        scale, bias = (torch.tensor(np.array(params[f"norm_{i}"][k])) for k in ("scale", "bias"))
        h = torch.nn.functional.group_norm(conv(h, f"conv_{i}", stride), 8, scale, bias)
        h = torch.nn.functional.leaky_relu(h, 0.2)
    np.testing.assert_allclose(found, conv(h, "conv_out", 1)[:, 0].numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(apply({"params": params}, x[:1]), found[:1], rtol=1e-4, atol=1e-6)


def test_the_published_discriminators_size():
    net = models.PatchDiscriminator()  # 3 halvings, 64 channels: pix2pix's with BatchNorm
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 24, 24, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 2_765_633
    assert jax.eval_shape(net.init_with_output, KEY, jnp.zeros((1, 24, 24, 3)))[0].shape == (1, 1, 1)
    assert jax.eval_shape(net.init_with_output, KEY, jnp.zeros((1, 256, 256, 3)))[0].shape == (1, 30, 30)


@jax.jit
def spectral_norms(params):
    """Estimates the norms of the layers that are normalised, which have no bias; in one program for all shapes."""
    return {name: models.spectral_norm(layer["kernel"]) for name, layer in params.items() if "bias" not in layer}


@pytest.fixture(scope="module")
def unet():
    """A small U-Net discriminator, compiled, and its weights."""
    net = models.UNetDiscriminator(ch=4)
    params = jax.jit(net.init)(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))["params"]
    return jax.jit(net.apply), {"params": params | {"conv_in": {**params["conv_in"], "bias": jnp.arange(4.0) / 4}}}


def test_the_unet_discriminator_equals_its_layers_in_torch(unet):
    torch = pytest.importorskip("torch")
    functions, (apply, weights) = torch.nn.functional, unet
    x, norms = jax.random.normal(KEY, (2, 21, 32, 3)), spectral_norms(weights["params"])
    assert len(norms) == 8

    def conv(h, name, stride=1):
        kernel, bias = (np.asarray(weights["params"][name].get(k)) for k in ("kernel", "bias"))
        if name not in ("conv_in", "conv_out"):
            kernel, bias = kernel / float(norms[name]), np.zeros(kernel.shape[-1], np.float32)
        kernel = torch.tensor(kernel).permute(3, 2, 0, 1)
        return functions.conv2d(h, kernel, torch.tensor(bias), stride=stride, padding=1)

    def layer(h, name, stride=1):
        return functions.leaky_relu(conv(h, name, stride), 0.2)

    h = functions.pad(torch.tensor(np.array(x)).permute(0, 3, 1, 2), (0, 0, 0, 3), mode="replicate")  # 24 x 32
    skips = [layer(h, "conv_in")]
    for i in (1, 2, 3):
        skips.append(layer(skips[-1], f"down_{i}", 2))
    h = skips.pop()
    for i in (2, 1, 0):
        h = functions.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
        h = layer(h, f"up_{i}") + skips.pop()
    expected = conv(layer(layer(h, "conv_0"), "conv_1"), "conv_out")[:, 0, :21]
    np.testing.assert_allclose(apply(weights, x), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_unet_discriminator_moves_with_the_picture(unet):
    apply, weights = unet
    x = jax.random.normal(KEY, (2, 104, 104, 3))
    whole, window = apply(weights, x), apply(weights, x[:, 8:, 16:])
    assert whole.shape == (2, 104, 104) and window.shape == (2, 96, 88)
    inner = np.s_[:, 40:-40, 40:-40]  # beyond it the border is seen
    np.testing.assert_allclose(window[inner], whole[:, 8:, 16:][inner], rtol=1e-4, atol=1e-5)


def test_the_unet_discriminators_size_and_spectral_norms():
    net, ch, image = models.UNetDiscriminator(), 64, jnp.zeros((1, 16, 16, 3))
    down, up = (sum(2 ** (2 * i + 1) for i in range(3)) * ch**2 * width**2 for width in (4, 3))
    ends = 9 * 3 * ch + ch + 2 * 9 * ch**2 + 9 * ch + 1
    sizes = [x.size for x in jax.tree.leaves(jax.eval_shape(net.init, KEY, image))]
    assert sum(sizes) == down + up + ends == 4_376_897
    norms, params = {}, jax.jit(net.clone(ch=16).init)(KEY, image)["params"]
    for name, estimate in spectral_norms(params).items():
        matrix = np.asarray(params[name]["kernel"]).reshape(-1, params[name]["kernel"].shape[-1])
        norms[name] = np.linalg.svd(matrix / float(estimate), compute_uv=False)[0]
    print("largest singular values under the estimate:", norms)
    assert len(norms) == 8 and all(0.999 < norm < 1.15 for norm in norms.values())


def test_the_spectral_norm_of_a_clear_case_and_its_gradient():
    u, v = (np.linalg.qr(np.random.default_rng(i).normal(size=(n, n)))[0] for i, n in ((0, 18), (1, 6)))
    values = np.array([5.0, 2, 1, 1, 0.5, 0])
    kernel = jnp.asarray((u[:, :6] * values) @ v.T, jnp.float32).reshape(3, 3, 2, 6)
    norm, grad = jax.value_and_grad(models.spectral_norm)(kernel)
    np.testing.assert_allclose(norm, 5, rtol=1e-4)
    np.testing.assert_allclose(grad.reshape(18, 6), np.outer(u[:, 0], v[:, 0]), atol=1e-3)


OTHER = {"loss.disc_net": "unet", "loss.disc_loss": "logistic", "loss.disc_ch": 4, "data.target_patch": 17}


def test_the_unet_and_the_logistic_loss_play_both_stages(unet):
    apply, _ = unet
    x_hat, x = 0.3 * jax.random.normal(KEY, (2, 2, 17, 17, 3)) - jnp.array([0.1, -0.2]).reshape(2, 1, 1, 1, 1)
    first_config = tiny("first_stage", **OTHER, **{"loss.disc_weight": 0.7, "loss.adaptive_weight": False})

    def rec(x_hat):
        return jnp.mean(jnp.square(x_hat - x))

    def forward(params):
        return adversary.Rendering(rec(x_hat * params), {}, x_hat * params, x, params, lambda last: x_hat * last, rec)

    first = adversary.make_critic(first_config, "loss.disc_weight", 17)
    config = tiny("align", **OTHER, **{"loss.align_disc_weight": 0.3})
    path, weight = adversary.make_critic(config, "loss.align_disc_weight", 17), jnp.array([2.0, 0.5])
    disc = jax.jit(first.init)(KEY)["params"]
    assert leaves_equal(disc, jax.jit(path.init)(KEY)["params"])
    real, fake = (apply({"params": disc}, image) for image in (x, x_hat))
    assert real.shape == (2, 17, 17)
    cost, d = np.log1p(np.exp(-fake)), np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp(fake)))
    right = (np.mean(real > 0) + np.mean(fake < 0)) / 2

    def first_loss(params, disc):
        return adversary.first_stage_loss(first, first_config.loss, disc, forward(params))

    step = jax.jit(jax.value_and_grad(first_loss, argnums=(0, 1), has_aux=True))
    (total, metrics), grads = step(jnp.ones(()), disc)
    np.testing.assert_allclose([metrics[k] for k in ("g", "d", "right")], [cost.mean(), d, right], rtol=1e-4)
    np.testing.assert_allclose(total, rec(x_hat) + 0.7 * cost.mean() + d, rtol=1e-4)
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in jax.tree.leaves(grads))

    share, metrics = jax.jit(lambda disc: adversary.path_loss(path, config.loss, disc, (x_hat, x), rec, weight))(disc)
    g = np.mean(weight * cost.mean((1, 2)))
    np.testing.assert_allclose([metrics[k] for k in ("g", "d", "right")], [g, d, right], rtol=1e-4)
    np.testing.assert_allclose(share, 0.3 * metrics["adaptive_weight"] * g, rtol=1e-4)


def test_a_unet_discriminator_learns_to_tell_noise_from_its_blur():
    config = tiny("align", **OTHER, **{"loss.align_disc_weight": 1.0, "loss.disc_learning_rate": 2e-3})
    judge = adversary.make_critic(config, "loss.align_disc_weight", 17)
    state = jax.jit(judge.init)(KEY)

    @jax.jit
    def step(state, key):
        x = jax.random.normal(key, (4, 17, 17, 3))
        x_hat = 0.5 * (x + jnp.roll(x, 1, axis=1))

        def loss(params):
            _, metrics = adversary.path_loss(judge, config.loss, params, (x_hat, x), jnp.sum, jnp.ones(4))
            return metrics["d"], metrics["right"]

        (_, right), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, opt_state = judge.tx.update(grads, state["opt_state"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state}, right

    rights = []
    for key in jax.random.split(KEY, 80):
        state, right = step(state, key)
        rights.append(float(right))
    print("share that the discriminator tells:", rights[::16])
    assert np.mean(rights[:3]) < 0.65 and np.mean(rights[-3:]) > 0.85


@pytest.fixture(scope="module")
def adversarial():
    config = wide("first_stage", **{"loss.disc_weight": 0.7, "loss.kl_weight": 2.0})
    net, params, frozen, batch = build(config)
    return config, net, params, frozen, batch, random_weights(jax.eval_shape(net.critic.init, KEY)["params"])


def test_the_adaptive_weight_and_both_gradients_equal_their_definitions(adversarial):
    config, net, params, frozen, batch, disc = adversarial
    judge = models.PatchDiscriminator(4, 2)
    first_stage = models.build_first_stage(config.model)

    def x_hat(params):
        mean, log_var = first_stage.apply({"params": params["first_stage"]}, batch["image"], method="posterior")
        z = stage.draw_latent(stage.example_keys(fold_name(KEY, "z_0"), batch), mean, log_var)
        return stage.render_window(first_stage, params["first_stage"], z, batch)

    def g(params):
        return -jnp.mean(judge.apply({"params": disc}, x_hat(params)))

    def d(disc, x_hat):
        real, fake = (judge.apply({"params": disc}, x) for x in (batch["target"], x_hat))
        return adversary.discriminator_loss(real, fake)

    def rec(params):
        return jnp.mean(jnp.abs(x_hat(params) - batch["target"]))

    @jax.jit
    def by_definition(params):
        to_rec, to_g = jax.grad(rec)(params), jax.grad(g)(params)
        norms = [jnp.linalg.norm(grads["first_stage"]["liif"]["kernel_2"]) for grads in (to_rec, to_g)]
        weight = norms[0] / (norms[1] + 1e-4)
        plain, to_plain = jax.value_and_grad(lambda p: net.loss_fn(p, frozen, batch, KEY)[0])(params)
        total = plain + 0.7 * weight * g(params)
        grads = jax.tree.map(lambda a, b: a + 0.7 * weight * b, to_plain, to_g)
        return weight, total, grads, jax.value_and_grad(d)(disc, x_hat(params))

    weight, total, to_params, (d_loss, to_disc) = by_definition(params)
    step = jax.jit(jax.value_and_grad(net.loss_fn, argnums=(0, 4), has_aux=True))
    (objective, metrics), grads = step(params, frozen, batch, KEY, disc)
    assert 0 < weight < 1e4
    np.testing.assert_allclose(metrics["adaptive_weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    np.testing.assert_allclose(metrics["d"], d_loss, rtol=1e-5)
    np.testing.assert_allclose(objective, total + d_loss, rtol=1e-5)
    for found, expected in zip(grads, (to_params, to_disc), strict=True):
        # rounding may carry one LeakyReLU over its kink, which moves a gradient by most of a per cent
        assert_gradients_close(found, expected)


def test_the_adaptive_weight_is_clipped_and_stops_gradients():
    kernel = jnp.array([[3.0]])
    out = adversary.Rendering(0, {}, kernel * 2, 0, kernel, lambda k: 2 * k, lambda x: 5 * jnp.sum(x))
    # the kernel's gradients: 5 * 2 and 0.01 * 2
    weigh = [adversary.adaptive_weight(out, lambda x: 0.01 * jnp.sum(x), most) for most in (1e4, 7.0)]
    np.testing.assert_allclose(weigh, [10 / (0.02 + 1e-4), 7], rtol=1e-5)


def with_critic(config):
    """The toy stage with a discriminator of one number: it tells apart what the stage makes and twice the image."""

    def init(key):
        params = {"scale": jax.random.normal(key, ())}
        return {"params": params, "opt_state": tx.init(params)}

    def loss_fn(params, frozen, batch, key, disc=None):
        loss, metrics = plain.loss_fn(params, frozen, batch, key)
        if disc is None:
            return loss, metrics
        x_hat, x = batch["image"] * params["unet"]["w"][None], 2 * batch["image"]
        g = adversary.generator_loss(jax.lax.stop_gradient(disc["scale"]) * x_hat)
        d = adversary.discriminator_loss(disc["scale"] * x, disc["scale"] * jax.lax.stop_gradient(x_hat))
        return loss + 0.5 * g + d, {**metrics, "loss": loss + 0.5 * g, "d": d}

    plain, tx = toy_stage(config), optax.adam(0.1)
    return plain._replace(loss_fn=loss_fn, critic=stage.Critic(None, init, tx, "hinge", start=1))


def test_a_discriminator_joins_at_its_step_and_resumes_bit_by_bit(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(stages.STAGES, "first_stage", with_critic)

    def newest(name):
        config = toy(3)
        optimizer = optimizer_from_config(config.train)
        parts = (config, tmp_path / name, with_critic(config), mesh.make_mesh(), optimizer)
        made = run.Run(*parts, Report(print, print))
        like = begin.state_shapes(made, storage.restore_params(tmp_path / name, ema=False))
        with checkpoint.open_manager(tmp_path / name, 2) as manager:
            return checkpoint.restore(manager, like)

    record = train(toy(3), tmp_path / "whole")
    train(toy(1), tmp_path / "parts")
    start_of = with_critic(None).critic.init(stream(0, "disc"))
    assert leaves_equal(newest("parts").disc, start_of)
    train(toy(3), tmp_path / "parts")
    whole, parts = newest("whole"), newest("parts")
    assert leaves_equal(whole, parts)
    assert whole.disc["params"]["scale"] != start_of["params"]["scale"]
    assert {"d", "loss", "val/loss"} < set(record)
    assert "d" not in reporting.read_metrics(tmp_path / "whole")[0]
    kept = {path.name for path in (tmp_path / "whole/checkpoints/3").iterdir() if path.is_dir()}
    assert {"params", "opt_state", "ema", "disc"} <= kept
    assert set(storage.read_weights(tmp_path / "whole")) == {"first_stage", "unet"}  # what aj.load and export read
