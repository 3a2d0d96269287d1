"""The Model's promises: windows, samples, sizes, errors. The weights are the random ones of tests/data."""

import json
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arbiscale_jax as aj
from arbiscale_jax import UserError, interop, models
from arbiscale_jax.artifacts.weights import load_weights, save_weights
from arbiscale_jax.evaluation import super_resolution
from arbiscale_jax.inference import model as model_module
from arbiscale_jax.inference import render, windows

HERE = Path(__file__).parent / "data"
IMAGE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("torch")
    return interop.load_torch(HERE / "tiny_sr.ckpt", HERE / "tiny_sr.json")


@pytest.fixture(scope="module")
def z():
    return np.asarray(jax.random.normal(jax.random.key(0), (2, 6, 9, 3)))


SIZE = (150, 97)


@pytest.fixture(scope="module")
def whole(model, z):
    return model.decode(z, SIZE)


@pytest.mark.parametrize(
    "box", [(0, 0, 3, 5), (147, 90, 3, 7), (60, 61, 10, 8), (0, 40, 150, 1), (33, 0, 90, 97), (149, 96, 1, 1)]
)
def test_a_window_is_the_crop_of_the_whole(model, z, whole, box):
    top, left, height, width = box
    crop = np.s_[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(model.decode(z, SIZE, box), whole[crop])
    np.testing.assert_array_equal(model.render(z, SIZE, box), model.render(z, SIZE)[crop])


def test_chunking_changes_a_render_by_rounding_only(model, z, whole, monkeypatch):
    monkeypatch.setattr(model, "tile", 40)
    np.testing.assert_allclose(model.decode(z, SIZE), whole, atol=1e-5)


def test_a_window_far_out_in_a_huge_image(model, z):
    size, box = (200_000, 300_000), (199_995, 123_456, 5, 7)
    found = model.decode(z, size, box)
    assert found.shape == (2, 5, 7, 3)
    assert np.all(np.abs(np.diff(found, axis=2)).max((1, 2, 3)) > 0)  # neighbours still differ
    np.testing.assert_array_equal(found[:, 1:, 2:], model.decode(z, size, (199_996, 123_458, 4, 5)))


def test_decode_divides_by_the_scale_factor(model, z):
    scaled = aj.Model(model.config, model.params, 0.5)
    np.testing.assert_allclose(scaled.decode(z * 0.5, (20, 20)), model.decode(z, (20, 20)), atol=1e-5)
    x = render.to_floats(np.repeat(IMAGE, 4, axis=0)[None, :, :8][0])[None]
    np.testing.assert_allclose(scaled.encode(x), 0.5 * model.encode(x), atol=1e-6)


def test_upscaling_gives_the_stated_size_and_type(model):
    found = model.upscale(IMAGE, scale=3.7, steps=2)
    assert found.shape == (round(3.7 * 6), round(3.7 * 9), 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, model.upscale(IMAGE, size=found.shape[:2], steps=2))
    deep = model.upscale(IMAGE.astype(np.uint16) * 257, scale=3.7, steps=2)
    assert deep.dtype == np.uint16
    np.testing.assert_allclose(deep / 257, found, atol=0.51)


def test_an_answer_depends_on_the_seed_and_its_number_alone(model):
    options = dict(scale=2, steps=2, eta=1.0)
    three = model.upscale(IMAGE, samples=3, seed=4, **options)
    assert three.shape == (3, 12, 18, 3)
    np.testing.assert_array_equal(three[0], model.upscale(IMAGE, seed=4, **options))
    np.testing.assert_array_equal(three[:2], model.upscale(IMAGE, samples=2, seed=4, **options))
    for other in (three[1], model.upscale(IMAGE, seed=5, **options)):
        assert np.abs(three[0].astype(int) - other).mean() > 0.5
    z = model.upscale_latent(IMAGE, samples=2, seed=4, steps=2, eta=1.0)
    np.testing.assert_array_equal(model.render(z, (12, 18)), three[:2])


def test_one_compiled_loop_equals_steps_taken_one_by_one(model, z):
    from arbiscale_jax import diffusion

    c = np.roll(z, 1, axis=2)
    path, z_t = diffusion.ddim_trajectory(4, model.alpha_bar), z
    for t, (a, b) in zip(path.t, pairwise(path.alpha_bar), strict=True):
        z_t = diffusion.ddim_step(z_t, model.denoise(z_t, int(t), c), a, b)
    np.testing.assert_allclose(model.sample(z, c, steps=4), z_t, atol=2e-5)


def test_sampling_may_start_from_the_noised_condition(model):
    from arbiscale_jax import diffusion

    c = model.condition(render.to_floats(IMAGE)[None])
    first = diffusion.first_time(3, 1000, 0.3)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(2), 0), 0)  # seed 2, answer 0, its first noise
    noise = jax.random.normal(key, c.shape[1:])[None]
    z_t = diffusion.q_sample(c, noise, np.array([first]), model.alpha_bar)
    path = diffusion.ddim_trajectory(3, model.alpha_bar, 0.3)
    for t, (a, b) in zip(path.t, pairwise(path.alpha_bar), strict=True):
        z_t = diffusion.ddim_step(z_t, model.denoise(z_t, int(t), c), a, b)
    found = model.upscale_latent(IMAGE, steps=3, start=0.3, seed=2)
    np.testing.assert_allclose(found, z_t, atol=2e-5)
    own = aj.Model({**model.config, "sampling": {**model.config["sampling"], "start": 0.3}}, model.params, 1.0)
    np.testing.assert_array_equal(own.upscale_latent(IMAGE, steps=3, seed=2), found)


def test_refining_adds_what_the_render_lacks_of_the_input(model):
    plain, once, twice = (model.upscale_latent(IMAGE, samples=2, steps=2, refine=n) for n in (0, 1, 2))
    lr = IMAGE.astype(np.float32)[None] / 127.5 - 1
    for z, refined in ((plain, once), (once, twice)):
        for i in range(2):
            x = model.decode(z[i : i + 1], tuple(side * model.factor for side in z.shape[1:3]))
            again = model.condition(jax.image.resize(np.clip(x, -1, 1), lr.shape, "cubic"))
            expected = z[i] + model.condition(lr)[0] - again[0]
            np.testing.assert_allclose(refined[i], expected, atol=1e-4)
    with pytest.raises(UserError, match="refine is a whole number >= 0, got -1"):
        model.upscale_latent(IMAGE, refine=-1)


@pytest.mark.parametrize("side", [2, 6])  # 2: too small to reflect, the border is repeated
def test_a_border_is_what_sampling_and_d_see_of_a_reflected_picture(model, z, side):
    config = {**model.config, "sampling": {**model.config["sampling"], "border": 4}}
    bordered, mode = aj.Model(config, model.params, model.scale_factor), "reflect" if side > 4 else "edge"

    def widened(x, n):  # [.. h w c]
        rows, cols, rest = ((n, n), (0, 0), (0, 0)), ((0, 0), (n, n), (0, 0)), ((0, 0),) * (np.ndim(x) - 3)
        return np.pad(np.pad(x, (*rest, *rows), mode), (*rest, *cols), "reflect")

    image, z = IMAGE[:side], z[:, :side]
    found, plain = bordered.upscale_latent(image, steps=2), model.upscale_latent(widened(image, 2), steps=2)
    assert found.shape == (1, 2 * side, 18, 3)  # two cells a pixel
    np.testing.assert_allclose(found, plain[:, 4:-4, 4:-4], atol=1e-5)
    found = bordered.decode(z, (8 * side, 72))
    plain = model.decode(widened(z, 4), (8 * (side + 8), 8 * 17), (32, 32, 8 * side, 72))
    np.testing.assert_allclose(found[:, 4:-4, 4:-4], plain[:, 4:-4, 4:-4], atol=1e-5)  # f_theta knows no cell outside


def test_f_theta_is_told_no_cell_size_beyond_the_bounds(model, z):
    def bounded(low, high):
        sampling = {**model.config["sampling"], "cell_min": low, "cell_max": high}
        return aj.Model({**model.config, "sampling": sampling}, model.params, model.scale_factor).decode(z, (48, 72))

    plain = model.decode(z, (48, 72))  # a cell is 2 * 6 / 48 = 0.25
    np.testing.assert_array_equal(bounded(0.2, 0.3), plain)
    net, params = model._net, {"params": model.params["first_stage"]}
    rows, cols = models.axis(6, 48), models.axis(9, 72)
    rows, cols = (one._replace(cell=np.float32(0.5)) for one in (rows, cols))
    expected = net.apply(params, z / model.scale_factor, rows, cols, method="render")
    np.testing.assert_allclose(bounded(0.5, 0.0), expected, atol=1e-4)
    assert np.abs(expected - plain).max() > 1e-3


# --- windows ---


@pytest.mark.parametrize("size", [(90, 171), (247, 640), (30, 19), (1, 2)])
@pytest.mark.parametrize("shape", [(90, 171), (300, 140)])
def test_windows_that_agree_make_the_whole(size, shape):
    truth, seen = np.random.default_rng(0).normal(size=(*size, 3)), []

    def show(top, left, box):
        seen.append((top, left))
        assert 0 <= top <= max(shape[0] - 128, 0) and 0 <= left <= max(shape[1] - 128, 0) and min(box[2:]) > 0
        for first, n, start, length, side in zip(box[:2], box[2:], (top, left), shape, size, strict=True):
            centres = (np.arange(first, first + n) + 0.5) * length / side - start  # in the window
            assert min(centres) > (windows.DEAD if start else 0) - 1e-9
            assert max(centres) < (128 - windows.DEAD if start + 128 < length else 128)
        return truth[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]

    sides = tuple(min(length, 128) for length in shape)
    plan = windows.Plan(shape, sides, 0, (0, 0), 1, windows.DEAD, windows.RAMP, 1, False)
    parts = list(windows.upscale(plan, size, show, lambda x: x))
    assert [first for first, _ in parts] == list(np.cumsum([0] + [len(rows) for _, rows in parts])[:-1])
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), truth, atol=1e-5)
    assert len(set(seen)) == len(seen) and (size[0] < 30 or len(seen) > 1)


def test_windows_cut_one_field_of_noise(model):
    key = jax.random.key(3)
    field = windows.noise_window(model._noise, key, (-4, -4, 200, 150), 3)
    assert field.shape == (1, 200, 150, 3) and abs(field.std() - 1) < 0.02 and abs(field.mean()) < 0.02
    part = windows.noise_window(model._noise, key, (60, 40, 90, 17), 3)
    np.testing.assert_array_equal(part, field[:, 64:154, 44:61])
    assert np.unique(field).size > 0.99 * field.size  # no block comes twice


@pytest.fixture
def small_windows(monkeypatch):
    for name, value in dict(BUDGET=1, LEAST=24, RAMP=8, DEAD=4).items():
        monkeypatch.setattr(windows, name, value)


PHOTO = np.random.default_rng(1).integers(0, 256, (38, 30, 3), dtype=np.uint8)  # two windows by three


def test_windows_of_local_networks_are_the_whole(model, small_windows, monkeypatch):
    model, ratio = aj.Model(model.config, model.params), int(model.config["condition"]["upsampling"]) // model.factor
    width = model.config["first_stage"]["ch"] * model.config["first_stage"]["ch_mult"][0]

    def latents(lr, *args):  # a pixel's own cells; the networks' normalisation sees everything
        return lr.repeat(ratio, 1).repeat(ratio, 2)

    monkeypatch.setattr(model, "_latents", latents)
    monkeypatch.setattr(model, "_features", lambda p, z: jnp.tile(z, width)[..., :width])
    for size in ((50, 61), (38, 30), (13, 100)):
        parts = model.upscale(PHOTO, size=size)
        assert not model.in_one_pass(PHOTO.shape)
        whole = model.render(latents(render.to_floats(PHOTO)[None]), size)[0]
        assert whole.std() > 3 and np.abs(np.int32(parts) - whole).max() <= 1


def test_a_large_photograph_is_upscaled_in_windows(model, small_windows, monkeypatch):
    done, options = [], dict(size=(50, 61), steps=1)
    parts = model.upscale(PHOTO, samples=2, **options, progress=lambda *now: done.append(now))
    assert parts.dtype == np.uint8 and parts.shape == (2, 50, 61, 3) and not np.array_equal(*parts)
    assert done == [(i, 12) for i in range(1, 13)]
    method = super_resolution.from_model("m", model, steps=1)
    np.testing.assert_array_equal(method.render(method.sample(PHOTO), (50, 61)), parts[:1])
    monkeypatch.setattr(model_module, "physical_memory", lambda: 2**16)
    with pytest.raises(UserError, match=r"38 x 30 pixels is too large for one latent .*; upscale\(\) works in windows"):
        model.upscale_latent(PHOTO)


def test_generation_without_a_condition(model):
    config = {
        **model.config,
        "condition": {**model.config["condition"], "enabled": False},
        "sampling": dict(steps=2, sampler="ddim", eta=0.0, size=8),
    }
    unet = {**model.params["unet"], "conv_in": {**model.params["unet"]["conv_in"]}}
    unet["conv_in"]["kernel"] = unet["conv_in"]["kernel"][:, :, :3]
    free = aj.Model(config, {**model.params, "unet": unet}, 1.0)
    images = free.generate(num=3, size=(10, 12), seed=1)
    assert images.shape == (3, 10, 12, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[:2], free.generate(num=2, size=(10, 12), seed=1))
    assert free.generate(num=1).shape == (1, 8, 8, 3)
    with pytest.raises(UserError, match="takes no condition"):
        free.upscale(IMAGE, scale=2)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e-3, "big", 1e30])
def test_a_scale_that_makes_no_picture_is_refused(model, scale):
    with pytest.raises(UserError, match="scale"):
        model.upscale(IMAGE, scale=scale)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda m, z: m.upscale(IMAGE, scale=1e6), "more than this machine's memory"),
        (lambda m, z: m.upscale(IMAGE), "either scale or size"),
        (lambda m, z: m.upscale(IMAGE[..., :2], scale=2), r"\[h, w, 3\]"),
        (lambda m, z: m.upscale(IMAGE.astype(np.float32), scale=2), "uint8 or uint16"),
        (lambda m, z: m.upscale(IMAGE, scale=2, samples=0), "samples is a whole number >= 1"),
        (lambda m, z: m.upscale(IMAGE, scale=2, seed=-1), "seed is a whole number >= 0"),
        (lambda m, z: m.upscale(IMAGE, scale=2, steps=0), "from 1 to 1000"),
        (lambda m, z: m.upscale(IMAGE, scale=2, sampler="euler"), "ddim, dpmpp"),
        (lambda m, z: m.upscale(IMAGE, scale=2, start=float("nan")), r"lies in \(0, 1\]"),
        (lambda m, z: m.render(z, (0, 5)), "whole numbers of pixels"),
        (lambda m, z: m.render(z, (5.5, 5)), "whole numbers of pixels"),
        (lambda m, z: m.render(z, (9, 9), box=(5, 5, 5, 1)), "does not lie inside"),
        (lambda m, z: m.render(z[..., :2], (9, 9)), r"Latents are \[b, h, w, 3\]"),
        (lambda m, z: m.denoise(z, 5), "needs a condition"),
        (lambda m, z: m.generate(2), "cannot generate without one"),
        (lambda m, z: m.encode(np.zeros((1, 1, 1, 3))), "at least 2 pixels"),
        (lambda m, z: aj.Model(m.config, {"first_stage": m.params["first_stage"]}).sample(z, z), "without a U-Net"),
    ],
)
def test_bad_input_is_one_clear_sentence(model, z, call, match):
    with pytest.raises(UserError, match=match):
        call(model, z)


def test_models_are_found_by_folder_and_errors_name_it(model, tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(UserError, match="no model 'nowhere'"):
        aj.load("nowhere")
    folder.mkdir()
    with pytest.raises(UserError, match="has no config.json"):
        aj.load(folder)
    (folder / "config.json").write_text(json.dumps({"model": model.config}))
    with pytest.raises(UserError, match="checkpoint"):
        aj.load(folder)
    save_weights(folder / "weights.safetensors", {**model.params, "scale_factor": np.float32(0.5)}, np.float16)
    loaded = aj.load(folder)
    assert loaded.scale_factor == 0.5 and isinstance(loaded.config["first_stage"]["ch"], int)
    kernel = model.params["unet"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(
        loaded.params["unet"]["conv_in"]["kernel"], np.asarray(kernel, np.float16).astype(np.float32)
    )
    assert loaded.upscale(IMAGE, scale=1.5, steps=1).shape == (9, 14, 3)
    (folder / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        aj.load(folder)


def test_weights_survive_a_file(tmp_path):
    tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "step": np.int32(3), "s": np.float32(0.1)}
    save_weights(tmp_path / "w.safetensors", tree, np.float16)
    found = load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(found["a"]["b"], tree["a"]["b"])
    assert (
        found["a"]["b"].dtype == np.float32 and found["step"] == 3 and found["s"] == np.float32(0.1)
    )  # scalars keep their type
