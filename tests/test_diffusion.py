"""The diffusion in closed form: no network is needed where the data is one Gaussian."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arbiscale_jax import diffusion
from arbiscale_jax.diffusion import Noise, parts

ALPHA_BAR = diffusion.make_alpha_bar(1000, 0.0015, 0.0155)
MEAN, STD = 0.7, 0.6  # of the data z_0 ~ N(m, s^2)


def gaussian_eps(z_t, t, std=STD):
    """E[eps | z_t] for z_0 ~ N(m, s^2): (z_t - sqrt(a) m) sqrt(1 - a) / (a s^2 + 1 - a); t may be fractional."""
    log_snr = np.log(ALPHA_BAR / (1 - ALPHA_BAR))
    a = jax.nn.sigmoid(jnp.interp(t.astype(jnp.float32), jnp.arange(1000.0), jnp.asarray(log_snr, jnp.float32)))[
        :, None, None, None
    ]
    return (z_t - jnp.sqrt(a) * MEAN) * jnp.sqrt(1 - a) / (a * std**2 + 1 - a)


def run(z_T, std=STD, eta=0.0, **options):
    def eps_fn(z_t, t):
        return gaussian_eps(z_t, t, std)

    def sample(z, keys):
        return diffusion.sample(eps_fn, z, ALPHA_BAR, noise=Noise(eta, drawn(keys, z.shape[1:])), **options)

    return jax.jit(sample)(z_T, jax.random.split(jax.random.key(5), len(z_T)))


def drawn(keys, shape):
    """Standard normal numbers [b, *shape] of each step; example i depends on keys[i] alone."""
    return lambda step: jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), shape))(keys)


def test_the_schedule_is_linear_in_the_square_root():
    betas = 1 - ALPHA_BAR / np.append(1, ALPHA_BAR[:-1])
    np.testing.assert_allclose(betas[[0, -1]], [0.0015, 0.0155], rtol=1e-10)
    np.testing.assert_allclose(np.diff(np.sqrt(betas), 2), 0, atol=1e-12)
    with pytest.raises(ValueError, match="linear_start"):
        diffusion.make_alpha_bar(1000, 0.02, 0.01)


@pytest.mark.parametrize(
    "steps, expected",
    [
        (5, [1, 201, 401, 601, 801]),
        (1000, range(1000)),
        (3, [1, 334, 667]),
        (999, [1 + k * 1000 // 999 for k in range(999)]),
    ],
)
def test_ddim_visits_the_stated_times(steps, expected):
    np.testing.assert_array_equal(diffusion.ddim_times(steps, 1000), expected)
    path = diffusion.ddim_trajectory(steps, ALPHA_BAR)
    assert path.t[0] == expected[-1] and path.alpha_bar[-1] == ALPHA_BAR[0] and len(path.alpha_bar) == steps + 1


def test_sampling_may_start_at_a_part_of_the_times():
    assert diffusion.first_time(4, 1000, 0.5) == 376 and diffusion.first_time(4, 1000) == 751
    z_t = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    for sampler, first in zip(diffusion.SAMPLERS, (343, 343, 399), strict=True):
        path = diffusion.trajectory(sampler, 7, ALPHA_BAR, 0.4)
        assert path.t[0] == diffusion.first_time(7, 1000, 0.4, sampler) == first
        assert path.alpha_bar[0] == pytest.approx(ALPHA_BAR[first])
        found = run(z_t, steps=7, sampler=sampler, start=0.4)
        kind = "dpmpp" if sampler == "dpmpp" else "ddim"
        np.testing.assert_allclose(found, closed_form(path, z_t, kind), atol=1e-5)


def test_trailing_times_begin_at_the_last_and_end_at_z_0():
    np.testing.assert_array_equal(diffusion.trailing_times(4, 1000), [249, 499, 749, 999])
    assert diffusion.trajectory("ddim_trailing", 1, ALPHA_BAR).alpha_bar[-1] == 1
    z_t, z_0 = jax.random.normal(jax.random.key(1), (2, 2, 4, 4, 1))

    def eps_fn(z, t):  # of a network that predicts z_0
        return diffusion.eps_from_z_0(z, z_0, t, ALPHA_BAR)

    for sampler, steps in (("ddim_trailing", 1), ("ddim_trailing", 4), ("dpmpp", 3)):
        found = diffusion.sample(eps_fn, z_t, ALPHA_BAR, steps=steps, sampler=sampler)
        tolerance = 1e-4 if sampler == "ddim_trailing" else 0.2  # dpmpp ends at the least noise of the schedule
        np.testing.assert_allclose(found, z_0, atol=tolerance)


def test_q_sample_and_its_inverse():
    z_0, eps = jax.random.normal(jax.random.key(0), (2, 3, 4, 6, 2))
    t = jnp.array([0, 400, 999])
    z_t = diffusion.q_sample(z_0, eps, t, ALPHA_BAR)
    a = ALPHA_BAR[np.array(t)][:, None, None, None]
    np.testing.assert_allclose(z_t, np.sqrt(a) * z_0 + np.sqrt(1 - a) * eps, atol=1e-5)
    np.testing.assert_allclose(diffusion.predict_z_0(z_t, eps, t, ALPHA_BAR), z_0, atol=2e-4)
    with pytest.raises(ValueError, match="eps must match"):
        diffusion.q_sample(z_0, eps[:1], t, ALPHA_BAR)


def test_both_sides_of_equation_8_agree_example_by_example():
    z_0, eps, eps_hat = jax.random.normal(jax.random.key(0), (3, 4, 4, 6, 2))
    t = jnp.array([3, 250, 600, 999])
    z_t = diffusion.q_sample(z_0, eps, t, ALPHA_BAR)
    z_0_hat = diffusion.predict_z_0(z_t, eps_hat, t, ALPHA_BAR)
    np.testing.assert_allclose(
        diffusion.recon_loss(z_0_hat, z_0, t, ALPHA_BAR), diffusion.eps_loss(eps_hat, eps), rtol=1e-3
    )


def test_the_weight_of_equation_7_can_be_capped():
    t = jnp.array([0, 500, 999])
    exact = ALPHA_BAR[np.array(t)] / (1 - ALPHA_BAR[np.array(t)])
    assert exact[0] == pytest.approx(665.7, abs=0.1)  # the 666 of the paper's schedule
    np.testing.assert_allclose(diffusion.snr_weight(t, ALPHA_BAR), exact, rtol=1e-5)
    np.testing.assert_allclose(diffusion.snr_weight(t, ALPHA_BAR, cap=5.0), np.minimum(exact, 5), rtol=1e-5)


def test_min_snr_weights_take_from_small_noise_alone():
    t = jnp.array([0, 200, 999])
    snr = ALPHA_BAR[np.array(t)] / (1 - ALPHA_BAR[np.array(t)])
    weight = diffusion.min_snr_weight(t, ALPHA_BAR, 5.0)
    np.testing.assert_allclose(weight, np.minimum(snr, 5) / snr, rtol=1e-5)
    assert weight[0] < 0.01 and weight[-1] == 1


@pytest.mark.parametrize("t, s", [(999, 500), (500, 1), (1, 0)])
def test_a_ddim_step_with_the_true_noise_stays_on_its_trajectory(t, s):
    z_0, eps = jax.random.normal(jax.random.key(0), (2, 2, 4, 6, 3))
    z_t, z_s = (diffusion.q_sample(z_0, eps, jnp.full(2, i), ALPHA_BAR) for i in (t, s))
    np.testing.assert_allclose(diffusion.ddim_step(z_t, eps, ALPHA_BAR[t], ALPHA_BAR[s]), z_s, atol=1e-3)


def closed_form(path, z_T, sampler):
    """The sampler on a Gaussian as an affine recursion z -> k z + d in float64; returns where z_T ends."""
    K, D = 1.0, 0.0  # z = K z_T + D
    before = None
    for a, a_next in pairwise(path.alpha_bar):
        g = np.sqrt(1 - a) / (a * STD**2 + 1 - a)  # eps = g (z - sqrt(a) m)
        eK, eD = g * K, g * (D - np.sqrt(a) * MEAN)
        xK, xD = (K - np.sqrt(1 - a) * eK) / np.sqrt(a), (D - np.sqrt(1 - a) * eD) / np.sqrt(a)
        if sampler == "ddim":
            K, D = (np.sqrt(a_next) * x + np.sqrt(1 - a_next) * e for x, e in ((xK, eK), (xD, eD)))
        else:
            h = 0.5 * np.log(a_next / (1 - a_next) * (1 - a) / a)
            yK, yD = (xK, xD) if before is None else (1.5 * xK - 0.5 * before[0], 1.5 * xD - 0.5 * before[1])
            keep, gain = np.sqrt((1 - a_next) / (1 - a)), -np.sqrt(a_next) * np.expm1(-h)
            K, D, before = keep * K + gain * yK, keep * D + gain * yD, (xK, xD)
    return K * np.asarray(z_T, np.float64) + D


@pytest.mark.parametrize("sampler, steps", [("ddim", 7), ("ddim", 200), ("dpmpp", 7), ("dpmpp", 20)])
def test_a_sampler_follows_its_closed_form_recursion(sampler, steps):
    z_T = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    path = getattr(diffusion, f"{sampler}_trajectory")(steps, ALPHA_BAR)
    np.testing.assert_allclose(run(z_T, steps=steps, sampler=sampler), closed_form(path, z_T, sampler), atol=1e-5)


@pytest.mark.parametrize("sampler, eta, std", [("ddim", 0.0, 0.6), ("ddim", 1.0, 1.0), ("dpmpp", 0.0, 0.3)])
def test_a_sampler_returns_the_gaussian_it_was_told_of(sampler, eta, std):
    # 200 steps of first order narrow a Gaussian of small s: DDIM by 2.2 % at s = 0.4, with eta = 1 by 3.3 % at s = 0.6
    start, end = diffusion.ddim_trajectory(200, ALPHA_BAR).alpha_bar[0], ALPHA_BAR[0]
    noise = np.asarray(jax.random.normal(jax.random.key(3), (16, 64, 64, 1)), np.float64)
    noise = (noise - noise.mean()) / noise.std()
    z_T = np.sqrt(start) * MEAN + np.sqrt(start * std**2 + 1 - start) * noise  # ~ q(z_T)
    z_0 = np.asarray(run(jnp.asarray(z_T, jnp.float32), std, steps=200, sampler=sampler, eta=eta))
    assert z_0.mean() == pytest.approx(np.sqrt(end) * MEAN, rel=0.02)
    assert z_0.std() == pytest.approx(np.sqrt(end * std**2 + 1 - end), rel=0.02)


def test_the_second_order_sampler_needs_fewer_steps():
    z_T = jax.random.normal(jax.random.key(1), (1, 8, 8, 1))
    a = diffusion.ddim_trajectory(10, ALPHA_BAR).alpha_bar[0]

    def std(a):
        return np.sqrt(a * STD**2 + 1 - a)

    exact = np.sqrt(ALPHA_BAR[0]) * MEAN + std(ALPHA_BAR[0]) / std(a) * (np.asarray(z_T) - np.sqrt(a) * MEAN)
    error = {s: np.abs(run(z_T, steps=10, sampler=s) - exact).max() for s in diffusion.SAMPLERS}
    assert error["dpmpp"] < 0.2 * error["ddim"]


@pytest.mark.parametrize("sampler, eta", [("ddim", 1.0), ("dpmpp", 0.0), ("ddim_trailing", 0.5)])
def test_a_loop_of_python_and_parts_give_what_the_scan_gives(sampler, eta, monkeypatch):
    alpha_bar, z_T = ALPHA_BAR[:50], jax.random.normal(jax.random.key(0), (2, 3, 4, 1))

    def draw(step):
        return jax.random.normal(jax.random.fold_in(jax.random.key(1), step), z_T.shape)

    def eps_fn(z_t, t):
        return 0.5 * z_t + 0.01 * t[:, None, None, None]

    options = dict(steps=4, sampler=sampler, start=0.8, noise=diffusion.Noise(eta, draw))
    whole = diffusion.sample(eps_fn, z_T, alpha_bar, **options)
    found = diffusion.sample_eagerly(lambda z_t, t: jnp.asarray(np.asarray(eps_fn(z_t, t))), z_T, alpha_bar, **options)
    np.testing.assert_allclose(found, whole, atol=1e-5)
    step = diffusion.make_step(eps_fn, sampler, draw if eta else None)
    run = jax.jit(lambda carry, some: jax.lax.scan(step, carry, some)[0])
    constants = diffusion.make_constants(alpha_bar, steps=4, sampler=sampler, start=0.8, eta=eta)
    for at_once, told in (({"cpu": 3}, [3, 1]), ({}, [4])):
        done: list[int] = []
        monkeypatch.setattr(parts, "AT_ONCE", at_once)
        found = diffusion.run_in_parts(run, diffusion.begin(z_T, sampler), constants, done.append)[0]
        np.testing.assert_allclose(found, whole, atol=1e-5)
        assert done == told


def test_ddim_noise_depends_on_the_examples_key_alone():
    z_T, keys = jax.random.normal(jax.random.key(1), (3, 4, 4, 1)), jax.random.split(jax.random.key(2), 3)

    @jax.jit
    def sample(z, keys):
        noise = Noise(1.0, drawn(keys, z.shape[1:]))
        return diffusion.sample(gaussian_eps, z, ALPHA_BAR, steps=5, noise=noise)

    np.testing.assert_allclose(sample(z_T, keys)[1:2], sample(z_T[1:2], keys[1:2]), atol=1e-6)
    a, b = np.float64(0.3), np.float64(0.5)
    np.testing.assert_allclose(diffusion.ddim_sigma(a, b, 1.0) ** 2, (1 - b) / (1 - a) * (1 - a / b))  # beta-tilde


def test_noise_is_a_function_of_seed_answer_and_cell():
    cells = np.stack(np.meshgrid([0, 3], np.arange(-4, 60), np.arange(-4, 40), indexing="ij"), axis=-1)  # 2 64 44 3
    field = np.asarray(diffusion.cell_noise(jax.random.key(3), cells, 0, 5))
    assert field.shape == (2, 64, 44, 5) and abs(field.std() - 1) < 0.01 and abs(field.mean()) < 0.02
    assert np.unique(field).size > 0.99 * field.size  # no cell's numbers come twice
    part = diffusion.cell_noise(jax.random.key(3), cells[1:, 7:20, 30:], 0, 5)
    np.testing.assert_array_equal(part, field[1:, 7:20, 30:])
    for seed, step in ((4, 0), (3, 1)):
        other = diffusion.cell_noise(jax.random.key(seed), cells, step, 5)
        assert abs(np.corrcoef(field.ravel(), np.ravel(other))[0, 1]) < 0.03


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(steps=0), "from 1 to 1000, got 0"),
        (dict(steps=1001), "from 1 to 1000"),
        (dict(steps=5, start=0.0), r"start, .*, lies in \(0, 1\], got 0"),
        (dict(steps=5, start=0.004), "from 1 to 4, got 5"),
        (dict(steps=5, sampler="euler"), "ddim, dpmpp, ddim_trailing, got 'euler'"),
        (dict(steps=5, noise=Noise(2, None)), r"eta lies in \[0, 1\]"),
        (dict(steps=5, noise=Noise(0.5, None), sampler="dpmpp"), "dpmpp is deterministic"),
    ],
)
def test_bad_sampling_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        diffusion.sample(gaussian_eps, jnp.zeros((1, 2, 2, 1)), ALPHA_BAR, **options)
