"""Viewers: windows have the bytes of render and upscale, and D is applied once."""

import numpy as np
import pytest
from web_models import write_models

import arbiscale_jax as aj
from arbiscale_jax import UserError
from arbiscale_jax.inference import rendering, windows


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return aj.load(write_models(tmp_path_factory.mktemp("models"))[0])


@pytest.fixture
def counted(monkeypatch):
    """Counts how often D is applied."""
    calls, compute = [], rendering.compute_features

    def counting(*args, **options):
        calls.append(args)
        return compute(*args, **options)

    monkeypatch.setattr(rendering, "compute_features", counting)
    return calls


def test_d_is_applied_once_for_all_sizes_and_windows(model, counted):
    z = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    viewer = model.viewer(z)
    assert viewer.nbytes == 0
    for size, box in (((30, 40), None), ((6000, 7000), (512, 640, 40, 30)), ((5, 4), (1, 0, 3, 4))):
        found = viewer.render(size, box)
        del counted[1:]
        np.testing.assert_array_equal(found, model.render(z[None], size, box)[0])
    assert viewer.nbytes > 0 and len(counted) == 2  # the viewer's call, and the last of model.render


def test_blocks_are_forgotten_where_they_do_not_fit(model, counted, monkeypatch):
    monkeypatch.setattr(windows, "DEAD", 4)
    monkeypatch.setattr(windows, "RAMP", 4)
    monkeypatch.setattr(rendering, "largest_side", lambda *args, **options: 24)
    z = np.random.default_rng(1).normal(size=(40, 30, 2)).astype(np.float32)
    expected = model.render(z[None], (80, 60))[0]
    for keep in (0, 2**30):
        viewer, found = model.viewer(z, keep=keep), []
        del counted[:]
        for _ in range(2):
            found.append(viewer.render((80, 60)))
        blocks = len(viewer._renderer.rows) * len(viewer._renderer.cols)
        assert blocks > 3
        np.testing.assert_array_equal(found, [expected, expected])
        assert len(counted) == (blocks if keep else 2 * blocks)
        one = viewer.nbytes // blocks if keep else viewer.nbytes
        assert viewer.nbytes == (blocks * one if keep else one)


def test_with_the_picture_windows_are_those_of_upscale(model):
    pixels = np.random.default_rng(2).integers(0, 65535, (12, 10, 2), dtype=np.uint16)
    [z] = np.asarray(model.upscale_latent(pixels))
    viewer = model.viewer(z, pixels)
    expected = model.upscale(pixels, size=(44, 37))
    np.testing.assert_array_equal(viewer.render((44, 37), (5, 3, 20, 30)), expected[5:25, 3:33])
    np.testing.assert_array_equal(np.concatenate(list(viewer.rows((44, 37)))), expected)


def test_answers_may_be_sampled_one_by_one(model):
    pixels = np.random.default_rng(3).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    both = np.asarray(model.upscale_latent(pixels, samples=2, seed=4))
    for i in range(2):
        np.testing.assert_array_equal(model.upscale_latent(pixels, first=i, seed=4), both[i : i + 1])
    with pytest.raises(UserError, match="first"):
        model.upscale_latent(pixels, first=-1)


def test_what_is_no_latent_or_window_is_refused(model):
    with pytest.raises(UserError, match=r"Latents are \[b, h, w, 2\]"):
        model.viewer(np.zeros((4, 4, 3), np.float32))
    viewer = model.viewer(np.zeros((4, 4, 2), np.float32))
    with pytest.raises(UserError, match="does not lie inside"):
        viewer.render((10, 10), (5, 5, 6, 5))
    with pytest.raises(UserError, match="whole numbers of pixels"):
        viewer.render((0, 10))
