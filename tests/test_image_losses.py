"""Losses of rendered pictures: what they see, what they do not, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arbiscale_jax.errors import UserError
from arbiscale_jax.training.stages import image_losses

RNG = np.random.default_rng(0)
LOSSES = [image_losses.l1, image_losses.coarse_l1, image_losses.spectrum_loss]


def texture(*size):
    """A rough picture [h w 3] in [-1, 1], of noise that is smoothed a little."""
    x = RNG.normal(size=(*size, 3))
    for axis in (0, 1):
        x = x + np.roll(x, 1, axis) + np.roll(x, 2, axis)
    return np.clip(0.1 * x, -1, 1).astype(np.float32)


X = np.stack([texture(80, 72), texture(80, 72)])  # b h w 3


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_pictures_cost_nothing_and_each_picture_counts_alone(loss):
    found = jax.jit(loss)(jnp.stack([X[0], X[0]]), X)
    assert found.shape == (2,) and abs(found[0]) < 1e-6 < found[1] and found.dtype == jnp.float32
    np.testing.assert_allclose(found[1:], loss(X[:1], X[1:]), rtol=1e-4)


def test_l1_and_coarse_l1_equal_their_definitions():
    other = X[::-1]
    np.testing.assert_allclose(image_losses.l1(X, other), np.abs(X - other).mean((1, 2, 3)), rtol=1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(X - other, (3, 3), (1, 2)).mean((-2, -1))  # b 78 70 3
    found = jax.jit(image_losses.coarse_l1, static_argnums=2)(X, other, 3)
    np.testing.assert_allclose(found, np.abs(windows).mean((1, 2, 3)), rtol=1e-4)
    flat = np.zeros((1, 8, 8, 3), np.float32)
    board = 0.5 * (-1.0) ** np.indices((8, 8)).sum(0)[None, :, :, None] * np.ones(3)
    np.testing.assert_allclose(image_losses.coarse_l1(flat + board, flat), [0], atol=1e-7)  # a checkerboard has no mean
    np.testing.assert_allclose(image_losses.coarse_l1(flat + 0.2, flat), [0.2], rtol=1e-6)


def test_the_spectrum_loss_equals_its_definition():
    def spectrum(x):
        grey, found = 127.5 * x.astype(float).mean(2), []
        for i in range(0, len(grey) - 31, 16):
            for j in range(0, grey.shape[1] - 31, 16):
                window = grey[i : i + 32, j : j + 32]
                window = (window - window.mean()) * np.outer(np.hanning(32), np.hanning(32))
                found.append(np.log(np.abs(np.fft.rfft2(window)) ** 2 + 30))
        return np.mean(found, axis=0)

    x_hat, x = X[0, :75, :50], X[1, :75, :50]  # 3 x 2 windows, the rest of 11 and 2 pixels left out
    expected = np.abs(spectrum(x_hat) - spectrum(x)).mean()
    np.testing.assert_allclose(jax.jit(image_losses.spectrum_loss)(x_hat[None], x[None]), [expected], rtol=1e-4)


def test_the_spectrum_loss_forgives_a_shift_and_punishes_stripes():
    wide = 0.2 * np.stack([texture(256, 260)])
    x, shifted = wide[:, :, :-4], wide[:, :, 4:]
    dots = 0.03 * (np.indices((256, 256)) % 4 == 0).all(0)[None, :, :, None].astype(np.float32)
    blurred = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 3
    loss, l1 = jax.jit(image_losses.spectrum_loss), image_losses.l1
    of_shift, of_dots, of_blur = (float(loss(y, x)[0]) for y in (shifted, x + dots, blurred))
    print("the spectrum loss of a shift, of dots, of a blur:", of_shift, of_dots, of_blur)
    assert 3 * of_shift < of_dots and 10 * of_shift < of_blur
    assert l1(shifted, x)[0] > 5 * l1(x + dots, x)[0]  # the other way round


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_even_where_pictures_are_constant(loss):
    grad = jax.jit(jax.grad(lambda x_hat, x: jnp.sum(loss(x_hat, x))))
    flat = jnp.full_like(X, 0.3)
    found = [grad(a, b) for a, b in ((X, X[::-1]), (flat, X), (X, flat), (flat, flat))]
    assert all(np.all(np.isfinite(x)) for x in found)
    assert all(np.any(x != 0) for x in found[:1] + found[2:3])


def test_gradient_steps_along_the_spectrum_loss_lower_it():
    def loss(x_hat):
        return jnp.sum(image_losses.spectrum_loss(x_hat, X))

    step, x_hat = jax.jit(jax.value_and_grad(loss)), jnp.asarray(0.3 * X[::-1])
    before, grad = step(x_hat)
    after, _ = step(x_hat - 0.02 * grad / jnp.max(jnp.abs(grad)))
    assert after < before


def test_a_picture_below_a_window_is_refused():
    image_losses.spectrum_loss(X[:, :32, :32], X[:, :32, :32])
    with pytest.raises(UserError, match="at least 32 pixels per side, got 31; raise data.target_patch"):
        image_losses.spectrum_loss(X[:, :31], X[:, :31])
