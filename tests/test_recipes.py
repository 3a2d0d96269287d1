"""The recipes: perceptual and adversarial terms, both alignments, accumulation, remat and bfloat16, at toy size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from test_training import leaves_equal
from test_training import tiny as two_levels

from arbiscale_jax import data, diffusion, models, perceptual, storage
from arbiscale_jax.errors import UserError
from arbiscale_jax.training import adversary, checkpoint, latent, loop, mesh, stage, start, train
from arbiscale_jax.training.optimizer import make_optimizer
from arbiscale_jax.training.state import create_state
from arbiscale_jax.training.step import make_train_step, mean_over_parts, stream
from arbiscale_jax.weights import save_weights

KEY = jax.random.key(7)
ALPHA_BAR = diffusion.make_alpha_bar(1000, 0.0015, 0.0155)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Halves this file's time, most of which is compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def tiny_lpips(monkeypatch):
    """Stands for AlexNet's weights with random ones of four channels, so that the package is not needed."""
    kernels = zip(jax.random.split(jax.random.key(1), 5), (11, 5, 3, 3, 3), (3, 4, 4, 4, 4))
    convs = tuple((jax.random.normal(key, (k, k, c, 4)) / k, jnp.zeros(4)) for key, k, c in kernels)
    weights = perceptual.Lpips("alex", convs, tuple(jnp.ones(4) for _ in range(5)))
    monkeypatch.setattr(stage, "load_lpips", lambda net: weights)
    return weights


def tiny(stage_name, **fields):
    """A config of any stage with networks of one level, which compile fast."""
    return two_levels(stage_name, **{"model.first_stage.ch_mult": (1,), "model.unet.channel_mult": (1,)} | fields)


def wide(stage_name, **fields):
    """`tiny` with a window of 32 pixels, large enough for AlexNet, and a small discriminator."""
    data = {"data.target_min": 32, "data.target_max": 40, "data.target_patch": 32}
    return tiny(stage_name, **data, **{"loss.lpips_net": "alex", "loss.disc_layers": 2, "loss.disc_ch": 4} | fields)


def build(config, batch_size=4):
    """Returns the stage, its params and frozen weights (LPIPS among them) and a batch, all as training has them."""
    net = loop.build_stage(config)
    batch = {k: jnp.asarray(v) for k, v in next(data.train_batches(config.data, 0, batch_size)).items()}
    params, frozen = start.split(jax.jit(net.init)(jax.random.key(0), batch), net.trained)
    if config.stage != "first_stage":
        # the last layer starts at zero; all of the U-Net should take part
        kernel = params["unet"]["conv_out"]["kernel"]
        params["unet"]["conv_out"]["kernel"] = 0.1 * jax.random.normal(KEY, kernel.shape)
        frozen["scale_factor"] = jnp.float32(0.9)
    return net, params, frozen | ({"lpips": net.lpips} if net.lpips else {}), batch


def assert_close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, **tolerance)


# --- the adversary ---


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
    found = net.apply({"params": params}, x)

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
    np.testing.assert_allclose(net.apply({"params": params}, x[:1]), found[:1], rtol=1e-4, atol=1e-6)


def test_the_published_discriminators_size():
    net = models.PatchDiscriminator()  # 3 halvings, 64 channels: pix2pix's with BatchNorm
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 24, 24, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 2_765_633
    assert jax.eval_shape(net.init_with_output, KEY, jnp.zeros((1, 24, 24, 3)))[0].shape == (1, 1, 1)
    assert jax.eval_shape(net.init_with_output, KEY, jnp.zeros((1, 256, 256, 3)))[0].shape == (1, 30, 30)


@pytest.fixture(scope="module")
def unet():
    """A small U-Net discriminator, compiled, and its weights."""
    net = models.UNetDiscriminator(ch=4)
    params = jax.jit(net.init)(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))["params"]
    return jax.jit(net.apply), {"params": params | {"conv_in": {**params["conv_in"], "bias": jnp.arange(4.0) / 4}}}


def test_the_unet_discriminator_equals_its_layers_in_torch(unet):
    torch = pytest.importorskip("torch")
    functions, (apply, weights) = torch.nn.functional, unet
    x = jax.random.normal(KEY, (2, 21, 32, 3))

    def conv(h, name, stride=1):
        kernel, bias = (np.asarray(weights["params"][name].get(k)) for k in ("kernel", "bias"))
        if name not in ("conv_in", "conv_out"):
            kernel, bias = kernel / float(models.spectral_norm(kernel)), np.zeros(kernel.shape[-1], np.float32)
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
    norms = {}
    for name, layer in jax.jit(net.clone(ch=16).init)(KEY, image)["params"].items():
        if "bias" not in layer:  # spectral normalisation
            matrix = np.asarray(layer["kernel"]).reshape(-1, layer["kernel"].shape[-1])
            norms[name] = np.linalg.svd(matrix / models.spectral_norm(layer["kernel"]), compute_uv=False)[0]
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
    config = tiny("first_stage", **OTHER, **{"loss.disc_weight": 0.7, "loss.adaptive_weight": False})

    def rec(x_hat):
        return jnp.mean(jnp.square(x_hat - x))

    def forward(params, frozen, batch, key):
        return adversary.Rendering(rec(x_hat * params), {}, x_hat * params, x, params, lambda last: x_hat * last, rec)

    first = adversary.make_adversary(config, forward)
    config = tiny("align", **OTHER, **{"loss.align_disc_weight": 0.3})
    path, weight = adversary.make_path_adversary(config, 17), jnp.array([2.0, 0.5])
    disc = jax.jit(first.init)(KEY)["params"]
    assert leaves_equal(disc, jax.jit(path.init)(KEY)["params"])
    real, fake = (apply({"params": disc}, image) for image in (x, x_hat))
    assert real.shape == (2, 17, 17)
    cost, d = np.log1p(np.exp(-fake)), np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp(fake)))
    right = (np.mean(real > 0) + np.mean(fake < 0)) / 2

    step = jax.jit(jax.value_and_grad(first.loss_fn, argnums=(0, 1), has_aux=True))
    (total, metrics), grads = step(jnp.ones(()), disc, {}, {}, KEY)
    np.testing.assert_allclose([metrics[k] for k in ("g", "d", "right")], [cost.mean(), d, right], rtol=1e-4)
    np.testing.assert_allclose(total, rec(x_hat) + 0.7 * cost.mean() + d, rtol=1e-4)
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in jax.tree.leaves(grads))

    share, metrics = jax.jit(path.loss_fn, static_argnums=3)(disc, x_hat, x, rec, weight)
    g = np.mean(weight * cost.mean((1, 2)))
    np.testing.assert_allclose([metrics[k] for k in ("g", "d", "right")], [g, d, right], rtol=1e-4)
    np.testing.assert_allclose(share, 0.3 * metrics["adaptive_weight"] * g, rtol=1e-4)


def test_a_unet_discriminator_learns_to_tell_noise_from_its_blur():
    config = tiny("align", **OTHER, **{"loss.align_disc_weight": 1.0, "loss.disc_learning_rate": 2e-3})
    judge = adversary.make_path_adversary(config, 17)
    state = jax.jit(judge.init)(KEY)

    @jax.jit
    def step(state, key):
        x = jax.random.normal(key, (4, 17, 17, 3))
        x_hat = 0.5 * (x + jnp.roll(x, 1, axis=1))

        def loss(params):
            _, metrics = judge.loss_fn(params, x_hat, x, jnp.sum, jnp.ones(4))
            return metrics["d"], metrics["right"]

        (_, right), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, opt_state = judge.tx.update(grads, state["opt_state"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state}, right

    rights = []
    for key in jax.random.split(KEY, 40):
        state, right = step(state, key)
        rights.append(float(right))
    print("share that the discriminator tells:", rights[::8])
    assert np.mean(rights[:3]) < 0.65 and np.mean(rights[-3:]) > 0.85


@pytest.fixture(scope="module")
def adversarial():
    config = wide("first_stage", **{"loss.disc_weight": 0.7, "loss.kl_weight": 2.0})
    net, params, frozen, batch = build(config)
    return config, net, params, frozen, batch, net.adversary.init(KEY)["params"]


def test_the_adaptive_weight_and_both_gradients_equal_their_definitions(adversarial):
    config, net, params, frozen, batch, disc = adversarial
    judge = models.PatchDiscriminator(4, 2)
    first_stage = models.build_first_stage(config.model)

    def x_hat(params):
        mean, log_var = first_stage.apply({"params": params["first_stage"]}, batch["image"], method="posterior")
        z = stage.draw_latent(stage.example_keys(KEY, batch), mean, log_var)
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
    step = jax.jit(jax.value_and_grad(net.adversary.loss_fn, argnums=(0, 1), has_aux=True))
    (objective, metrics), grads = step(params, disc, frozen, batch, KEY)
    assert 0 < weight < 1e4
    np.testing.assert_allclose(metrics["adaptive_weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    np.testing.assert_allclose(metrics["d"], d_loss, rtol=1e-5)
    np.testing.assert_allclose(objective, total + d_loss, rtol=1e-5)
    for found, expected in zip(grads, (to_params, to_disc)):
        # rounding may carry one LeakyReLU over its kink, which moves a gradient by most of a per cent
        assert optax.tree.norm(optax.tree.sub(found, expected)) < 0.02 * optax.tree.norm(expected)


def test_the_adaptive_weight_is_clipped_and_stops_gradients():
    kernel = jnp.array([[3.0]])
    out = adversary.Rendering(0, {}, kernel * 2, 0, kernel, lambda k: 2 * k, lambda x: 5 * jnp.sum(x))
    # the kernel's gradients: 5 * 2 and 0.01 * 2
    weigh = [adversary.adaptive_weight(out, lambda x: 0.01 * jnp.sum(x), most) for most in (1e4, 7.0)]
    np.testing.assert_allclose(weigh, [10 / (0.02 + 1e-4), 7], rtol=1e-5)


def test_a_discriminator_joins_at_its_step_and_resumes_bit_by_bit(tmp_path, tiny_lpips):
    def config(steps):
        fields = {"loss.disc_weight": 0.5, "loss.disc_start": 1, "loss.lpips_weight": 0.1, "train.steps": steps}
        return wide("first_stage", **fields)

    def newest(name):
        tx, m = make_optimizer(config(3).train.learning_rate), mesh.make_mesh()
        params = storage.restore_params(tmp_path / name, ema=False)
        _, like = loop._state_maker(config(3), loop.build_stage(config(3)), tx, m, params)
        with checkpoint.open_manager(tmp_path / name, 2) as manager:
            return checkpoint.restore(manager, like)[0]

    record = train(config(3), tmp_path / "whole")
    train(config(1), tmp_path / "parts")
    start_of = jax.jit(loop.build_stage(config(3)).adversary.init)(stream(0, "disc"))
    assert leaves_equal(newest("parts").disc, start_of)
    train(config(3), tmp_path / "parts")
    whole, parts = newest("whole"), newest("parts")
    assert leaves_equal(whole, parts)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), whole.disc["params"], start_of["params"])
    assert all(layer.get("kernel", 1) > 0 for layer in moved.values())
    assert {"l1", "lpips", "kl", "loss", "val/lpips", "val/psnr"} < set(record)
    kept = {path.name for path in (tmp_path / "whole/checkpoints/3").iterdir() if path.is_dir()}
    assert {"params", "opt_state", "ema", "disc"} <= kept
    assert set(storage.read_weights(tmp_path / "whole")) == {"first_stage"}  # what aj.load and export read


# --- memory and precision ---


def sgd_step(net, params, frozen, batch, devices=1, **options):
    """One update by SGD on so many devices; returns the new weights and the metrics."""
    m, tx = mesh.make_mesh(jax.devices()[:devices]), optax.sgd(0.1)
    state = mesh.replicate(create_state(params, tx, 0.0), m)
    step = make_train_step(net.loss_fn, tx, KEY, 0.0, mesh.replicated(m), **options)
    state, metrics = step(state, mesh.replicate(frozen, m), mesh.shard_batch(batch, m))
    return jax.device_get((state.params, metrics))


@pytest.mark.parametrize("name", ["first_stage", "diffusion"])
def test_four_micro_batches_of_two_equal_a_batch_of_eight(name):
    net, params, frozen, batch = build(tiny(name, **{"model.unet.dropout": 0.3}), 8)
    whole, metrics = sgd_step(net, params, frozen, batch)
    parts, of_parts = sgd_step(net, params, frozen, batch, devices=2, accumulate=4)
    assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    assert_close(metrics, of_parts, rtol=1e-5)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), whole, params))) > 1e-3


def test_micro_batches_put_outputs_back_in_order():
    data = {"x": jnp.arange(12.0).reshape(6, 2)}
    (loss, (metrics, out)), grads = mean_over_parts(
        lambda d: ((jnp.mean(d["x"]), ({"n": jnp.float32(len(d["x"]))}, 2 * d["x"])), jnp.sum(d["x"])), data, 3
    )
    np.testing.assert_array_equal(out, 2 * data["x"])
    assert (float(loss), float(metrics["n"]), float(grads)) == (5.5, 2, 22)


def test_a_batch_that_does_not_divide_into_micro_batches_is_refused(tmp_path):
    for accumulate, message in ((0, "accumulate must be at least 1"), (4, "of 2, the number of devices times .*=4")):
        with pytest.raises(UserError, match=message):
            train(tiny("first_stage", **{"train.accumulate": accumulate}), tmp_path)


def test_remat_changes_the_loss_by_rounding_only():
    results = []
    for remat in (False, True):  # alignment: the gradient passes f_theta, D and the U-Net
        net, params, frozen, batch = build(tiny("align", **{"train.remat": remat}), 2)
        value_and_grad = jax.jit(jax.value_and_grad(lambda p: net.loss_fn(p, frozen, batch, KEY)[0])).trace(params)
        recomputed = [eqn for eqn in value_and_grad.jaxpr.eqns if "remat" in eqn.primitive.name]
        assert len(recomputed) >= 4 + 4 + 5 + 1 if remat else not recomputed  # f_theta, D, the U-Net, its attention
        results.append(value_and_grad.lower().compile()(params))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["first_stage", "align"])
def test_bfloat16_changes_the_loss_by_rounding_only(name, tiny_lpips):
    metrics = {}
    fields = {"loss.lpips_weight": 0.1, "loss.disc_weight": 0.5, "loss.align_lpips_weight": 0.1, "loss.weight_cap": 5.0}
    for dtype in ("float32", "bfloat16"):
        net, params, frozen, batch = build(wide(name, dtype=dtype, **fields), 2)
        disc = net.adversary.init(KEY)["params"] if net.adversary else {}

        def loss(params, disc):
            if net.adversary:
                return net.adversary.loss_fn(params, disc, frozen, batch, KEY)
            return net.loss_fn(params, frozen, batch, KEY)

        if dtype == "float32":
            metrics[dtype] = jax.jit(loss)(params, disc)[1]
    (_, metrics["bfloat16"]), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, disc)
    for name, value in metrics["bfloat16"].items():
        assert value.dtype == jnp.float32 and value != metrics["float32"][name]
        np.testing.assert_allclose(value, metrics["float32"][name], rtol=0.1, atol=0.01, err_msg=name)
    assert all(x.dtype == jnp.float32 and np.all(np.isfinite(x)) for x in jax.tree.leaves(grads))


# --- alignment ---


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


REVERSE = {"loss.align_mode": "reverse_ddim", "loss.align_steps": 3, "loss.align_t0": 600}


def test_a_reverse_path_updates_at_every_point_and_detaches_between():
    net, params, frozen, batch = build(tiny("align", **REVERSE), 2)
    times = (401, 201, 1)
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
        a_s = ALPHA_BAR[times[i + 1]] if i < 2 else ALPHA_BAR[0]
        np.testing.assert_allclose(point["z_t"], np.sqrt(a_s) * z_0_hat + np.sqrt(1 - a_s) * eps_hat, atol=1e-4)
        weights = jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads)
        losses.append(loss)
    found, metrics = sgd_step(net, params, frozen, batch, path=net.path)
    assert_close(found, weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-4)


SAMPLING = {"loss.align_mode": "sampling", "loss.align_steps": 3, "loss.weight_cap": 2.0, "model.sampling.steps": 3}


@pytest.mark.parametrize("begin", [0.0, 0.3])
def test_the_path_of_sampling_is_the_one_that_sampling_takes(begin):
    config = tiny("align", **SAMPLING, **{"model.sampling.start": begin})
    net, params, frozen, batch = build(config, 2)
    nets, key = latent.build_nets(config), jax.random.fold_in(KEY, 0)
    point, losses = jax.jit(net.path.begin)(params, frozen, batch, key), []
    z_T, c, z_0 = point["z_t"], point["c"], point["z_0"]
    if not begin:
        assert abs(float(jnp.mean(z_T))) < 0.2 and abs(float(jnp.std(z_T)) - 1) < 0.2
    path = diffusion.ddim_trajectory(3, ALPHA_BAR, begin or 1.0)
    step = jax.jit(net.path.loss_fn)
    for i in range(3):
        z_t = point["z_t"]
        loss, (metrics, point) = step(params, frozen, batch, key, point, i)
        eps_hat = nets.unet.apply({"params": params["unet"]}, z_t, jnp.full(2, path.t[i]), c)
        a = path.alpha_bar[i]
        error = np.mean((z_0 - diffusion.predict_z_0(z_t, eps_hat, jnp.full(2, path.t[i]), ALPHA_BAR)) ** 2)
        np.testing.assert_allclose(metrics["dm"], min(a / (1 - a), 2.0) * error, rtol=1e-3)  # Eq. 8 under the cap
        losses.append(loss)

    def eps_fn(z_t, t):
        return nets.unet.apply({"params": params["unet"]}, z_t, t, c)

    sampled = diffusion.sample(eps_fn, z_T, ALPHA_BAR, steps=3, start=begin or 1.0)
    np.testing.assert_allclose(point["z_t"], sampled, atol=1e-4)
    found, metrics = sgd_step(net, params, frozen, batch, path=net.path)
    assert not np.allclose(found["unet"]["conv_out"]["bias"], params["unet"]["conv_out"]["bias"])
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=0.2)  # the weights change along the path


def test_a_discriminator_on_the_path_equals_its_definition(tiny_lpips):
    fields = {"loss.align_disc_weight": 0.7, "loss.align_lpips_weight": 0.1, "model.sampling.start": 0.3}
    config = wide("align", **SAMPLING, **fields)
    net, params, frozen, batch = build(config, 2)
    nets, key, judge = latent.build_nets(config), jax.random.fold_in(KEY, 0), models.PatchDiscriminator(4, 2)
    disc, point = net.adversary.init(KEY)["params"], jax.jit(net.path.begin)(params, frozen, batch, key)
    t, c = diffusion.ddim_trajectory(3, ALPHA_BAR, 0.3).t[1], point["c"]
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
    for found, expected in zip(grads, (to_params, to_disc)):
        assert optax.tree.norm(optax.tree.sub(found, expected)) < 0.02 * optax.tree.norm(expected)


def test_reverse_ddim_trains_and_resumes_bit_by_bit(tmp_path):
    _, params, frozen, _ = build(tiny("align"))
    (tmp_path / "start").mkdir()
    checkpoint.write_config(tmp_path / "start", tiny("align").to_dict())
    save_weights(tmp_path / "start" / storage.WEIGHTS, storage.merge(params, frozen))
    trees = {}
    for name, counts in (("whole", (2,)), ("parts", (1, 2))):
        for steps in counts:
            record = train(
                tiny("align", **REVERSE, **{"init_from": str(tmp_path / "start"), "train.steps": steps}),
                tmp_path / name,
            )
        assert record["step"] == 2 and {"dm", "recon", "val/psnr"} < set(record)
        trees[name] = [storage.restore_params(tmp_path / name, ema=ema) for ema in (True, False)]
    assert leaves_equal(trees["whole"], trees["parts"])
    assert not leaves_equal(trees["whole"][1]["unet"], params["unet"])


@pytest.mark.parametrize("size, perceptual_weight", [("target", 0.5), ("image", 0), ("latent", 0)])
def test_the_alignment_loss_at_every_render_size(size, perceptual_weight, tiny_lpips):
    fields = {
        "loss.render_size": size,
        "loss.align_lpips_weight": perceptual_weight,
        "model.first_stage.ch_mult": (1, 1),
    }
    config = wide("align", **fields, **{"loss.weight_cap": 2.0, "loss.lambda_dm": 0.5, "loss.lambda_recon": 3.0})
    net, params, frozen, batch = build(config, 2)
    nets, (key_t, key) = latent.build_nets(config), jax.random.split(KEY)
    t = jax.vmap(lambda k: jax.random.randint(k, (), 0, 1000))(stage.example_keys(key_t, batch))

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
        loop.build_stage(tiny(name, **fields))
