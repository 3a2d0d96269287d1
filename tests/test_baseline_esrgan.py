"""ESRGAN: its networks against torch, its published formats of weights, its losses, its interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arbiscale_jax.baselines.rrdb import DenseBlock, RRDBNet
from arbiscale_jax.baselines.vgg_discriminator import VGGDiscriminator
from arbiscale_jax.errors import UserError
from arbiscale_jax.interop.rrdb_layout import load_rrdb
from arbiscale_jax.perceptual import Lpips
from arbiscale_jax.training.stages import esrgan_losses as losses

torch = pytest.importorskip("torch")

import reference_rrdb as reference  # noqa: E402 (it needs torch)

TINY = {"features": 8, "growth": 4, "blocks": 2}
FORMS = ("first", "second", "basicsr")


def size(shapes):
    return sum(x.size for x in jax.tree.leaves(shapes))


def arrays(form="basicsr", **sizes):
    return {name: x.numpy() for name, x in reference.generator_weights(**(TINY | sizes), form=form).items()}


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda params, x: RRDBNet(**TINY).apply({"params": params}, x))


def test_the_generator_equals_the_torch_one(apply):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 6, 7, 3)).astype(np.float32)
    weights = reference.generator_weights(**TINY)
    with torch.no_grad():
        y = reference.generator(weights, torch.tensor(x).permute(0, 3, 1, 2) / 2 + 0.5, **TINY)
    wanted = 2 * y.permute(0, 2, 3, 1).numpy() - 1
    found = apply(load_rrdb(arrays())[1], x)
    assert found.shape == (2, 24, 28, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())


def test_the_published_generators_size():
    shapes = jax.eval_shape(RRDBNet().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert size(shapes) == 16_697_987
    published = reference.generator_weights(23, 64, 32, device="meta")
    assert sum(x.numel() for x in published.values()) == 16_697_987


def test_residual_branches_begin_small():
    x = jnp.zeros((1, 2, 2, 32))
    kernel = jax.jit(DenseBlock(16).init)(jax.random.key(0), x)["params"]["conv_5"]["kernel"]  # 9 * 96 inputs
    assert np.std(kernel) == pytest.approx(0.1 * np.sqrt(2 / (9 * 96)), rel=0.05)


def test_parameters_read_have_the_shapes_of_the_networks():
    made = jax.eval_shape(RRDBNet(**TINY).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert jax.tree.map(jnp.shape, load_rrdb(arrays())[1]) == jax.tree.map(jnp.shape, made)


def test_every_format_gives_the_same_network():
    fields, params = load_rrdb(arrays())
    assert fields == TINY
    for form in FORMS:
        state = arrays(form)
        for given in (state, {"params": state}, {"params_ema": state, "params": {"other": np.zeros(1)}}):
            found = load_rrdb(given)
            assert found[0] == TINY
            jax.tree.map(np.testing.assert_array_equal, found[1], params)
    half = load_rrdb({name: x.astype(np.float16) for name, x in arrays().items()})[1]
    assert {x.dtype for x in jax.tree.leaves(half)} == {np.dtype(np.float32)}


def test_fields_come_from_the_shapes():
    for form in FORMS:
        assert load_rrdb(arrays(form, blocks=1, features=6, growth=5))[0] == {"features": 6, "growth": 5, "blocks": 1}


@pytest.mark.parametrize(
    "form, changes, match",
    [
        ("basicsr", {"conv_hr.bias": None}, r"conv_hr.bias is missing: expected an array \[8\] .* found none"),
        ("basicsr", {"body.0.rdb1.conv1.weight": None}, r"body.0.rdb1.conv1.weight is missing: .*\[n 8 3 3\]"),
        ("basicsr", {"body.0.rdb3.conv2.bias": None}, r"body.0.rdb3.conv2.bias is missing: .*\[4\]"),
        ("first", {"model.10.weight": None}, r"model.10.weight is missing: .*\[3 8 3 3\]"),
        ("first", {"model.1.sub.2.weight": None}, r"model.1.sub.2.weight is missing"),
        ("second", {"RRDB_trunk.9.RDB1.conv1.weight": (4, 8, 3, 3)}, r"RRDB_trunk.2.RDB1.conv1.weight is missing"),
        ("second", {"HRconv.weight": (8, 8, 1, 1)}, r"HRconv.weight .* expected \[8 8 3 3\], found \[8 8 1 1\]"),
        ("basicsr", {"conv_first.weight": (8, 12, 3, 3)}, r"expected \[n 3 3 3\], found \[8 12 3 3\]"),
        ("basicsr", {"conv_first.weight": (0, 3, 3, 3)}, r"expected \[n 3 3 3\], found \[0 3 3 3\]"),
        ("basicsr", {"conv_last.weight": (3, 8)}, r"conv_last.weight .* expected \[3 8 3 3\], found \[3 8\]"),
        ("basicsr", {"conv_up3.weight": (8, 8, 3, 3)}, r"conv_up3.weight is unknown: expected only the 72 .* found 1"),
    ],
)
def test_what_does_not_fit_is_named(form, changes, match):
    state = arrays(form)
    for name, shape in changes.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=match):
        load_rrdb(state)


@pytest.mark.parametrize("state, found", [({}, "no key"), ({"encoder.weight": np.zeros(1)}, "encoder.weight")])
def test_weights_of_something_else_are_refused(state, found):
    with pytest.raises(UserError, match=f"not those of an RRDB network: expected keys like .*, found {found}"):
        load_rrdb(state)


def test_the_discriminator_equals_the_torch_one():
    net, x = VGGDiscriminator(ch=4, hidden=6), jax.random.normal(jax.random.key(0), (2, 32, 64, 3))
    weights = reference.Weights(seed=2)
    with torch.no_grad():
        wanted = reference.discriminator(weights, torch.tensor(np.array(x)).permute(0, 3, 1, 2), 4, 6).numpy()
    params: dict = {}
    for name, value in weights.items():
        layer, kind = name.split(".")
        value = value.numpy().transpose(*range(2, value.ndim), *((1, 0) if value.ndim > 1 else (0,)))
        kind = kind if kind == "bias" else "scale" if value.ndim == 1 else "kernel"
        params.setdefault(layer, {})[kind] = value
    found = jax.jit(net.apply)({"params": params}, x)
    assert found.shape == (2,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * wanted.std())


def test_the_published_discriminators_size():
    shapes = jax.eval_shape(VGGDiscriminator().init, jax.random.key(0), jnp.zeros((1, 128, 128, 3)))["params"]
    assert size(shapes) == 14_499_401  # BasicSR's: without biases before the norms
    for side in (40, 0):
        with pytest.raises(ValueError, match=f"multiples of 32 pixels, got 32 x {side}"):
            jax.eval_shape(VGGDiscriminator().init, jax.random.key(0), jnp.zeros((1, 32, side, 3)))


def test_the_discriminator_learns_to_tell_two_batches_apart():
    net, tx = VGGDiscriminator(ch=4, hidden=8), optax.adam(1e-3)
    real, fake = jnp.full((2, 32, 32, 3), 0.5), jnp.full((2, 32, 32, 3), -0.5)

    @jax.jit
    def step(params, state):
        def loss_fn(params):
            logits = net.apply({"params": params}, jnp.concatenate([real, fake]))
            return losses.relativistic_discriminator_loss(logits[:2], logits[2:])

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params = jax.jit(net.init)(jax.random.key(0), real)["params"]
    state, found = tx.init(params), []
    for _ in range(10):
        params, state, loss = step(params, state)
        found.append(float(loss))
    assert found[-1] < 0.1 < found[0]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_relativistic_losses_equal_their_definition():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(1, 1, (4, 3)), rng.normal(0, 1, (4, 3))
    d_real, d_fake = sigmoid(real - fake.mean()), sigmoid(fake - real.mean())
    detect = -np.log(d_real).mean() - np.log(1 - d_fake).mean()
    fool = -np.log(1 - d_real).mean() - np.log(d_fake).mean()
    real, fake = jnp.float32(real), jnp.float32(fake)
    np.testing.assert_allclose(losses.relativistic_discriminator_loss(real, fake), detect, rtol=1e-5)
    np.testing.assert_allclose(losses.relativistic_generator_loss(real, fake), fool, rtol=1e-5)
    np.testing.assert_allclose(losses.relativistic_generator_loss(real + 7, fake + 7), fool, rtol=1e-5)


def test_relativistic_losses_at_equal_and_at_far_logits():
    same = jnp.full(5, 3.0)
    for loss in (losses.relativistic_discriminator_loss, losses.relativistic_generator_loss):
        np.testing.assert_allclose(loss(same, same), 2 * np.log(2), rtol=1e-6)
        np.testing.assert_allclose(np.sort([loss(same + 500, same), loss(same, same + 500)]), [0, 1000], atol=1e-6)


def test_gradients_pull_the_logits_the_right_way():
    real, fake = jnp.array([0.3, -0.2]), jnp.array([0.1, 0.4])
    d_real, d_fake = jax.grad(losses.relativistic_discriminator_loss, (0, 1))(real, fake)
    g_real, g_fake = jax.grad(losses.relativistic_generator_loss, (0, 1))(real, fake)
    assert np.all(d_real < 0) and np.all(d_fake > 0)  # a step against them raises true images' logits
    assert np.all(g_real > 0) and np.all(g_fake < 0)  # and the generator benefits from both kinds
    np.testing.assert_allclose(d_real.sum(), -d_fake.sum(), rtol=1e-5)  # a shift of both changes nothing


def test_the_objective_has_the_weights_of_the_paper():
    x_hat, x = jnp.full((2, 4, 4, 3), 0.5), jnp.full((2, 4, 4, 3), -0.5)
    pixel = losses.pixel_loss(x_hat, x)
    np.testing.assert_allclose(pixel, [0.5, 0.5])  # on the scale [0, 1]
    found = losses.generator_objective(jnp.array([1.0, 2.0]), jnp.float32(4.0), pixel)
    np.testing.assert_allclose(found, [1 + 0.02 + 0.005, 2 + 0.02 + 0.005], rtol=1e-6)
    np.testing.assert_allclose(losses.generator_objective(1.0, 4.0, 0.5, 0.5, 2.0), 1 + 2 + 1)


def test_the_perceptual_loss_is_that_of_the_last_convolution_before_its_activation():
    rng, widths = np.random.default_rng(0), (3, *(4,) * 13)
    pairs = zip(widths[:-1], widths[1:], strict=True)
    convs = tuple((np.float32(rng.normal(size=(3, 3, i, o)) / 3), np.float32(rng.normal(size=o))) for i, o in pairs)
    x_hat, x = np.float32(rng.uniform(-1, 1, (2, 2, 17, 32, 3)))

    def features(y):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        y = ((torch.tensor(y) / 2 + 0.5 - mean) / std).permute(0, 3, 1, 2)
        for i, (kernel, bias) in enumerate(convs):
            y = torch.nn.functional.max_pool2d(y, 2) if i in (2, 4, 7, 10) else y
            y = y.relu() if i else y
            y = torch.nn.functional.conv2d(y, torch.tensor(kernel).permute(3, 2, 0, 1), torch.tensor(bias), padding=1)
        return y

    difference = (features(x_hat) - features(x)).abs().mean((1, 2, 3)).numpy()
    weights = Lpips("vgg", convs, ())
    found = jax.jit(losses.perceptual_loss)(weights, x_hat, x)
    np.testing.assert_allclose(found, difference, rtol=1e-3)
    assert np.all(difference > 0.1) and features(x).min() < 0  # nothing has passed a ReLU
    with pytest.raises(ValueError, match="alex is from 0 to 4, got 12"):
        losses.perceptual_loss(Lpips("alex", convs[:5], ()), x_hat, x)
