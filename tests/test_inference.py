"""The Model's promises: windows, samples, sizes, errors. The weights are the random ones of tests/data."""

import json
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax import UserError, diffusion, interop, models
from arbiscale_jax.artifacts.weights import load_weights, save_weights
from arbiscale_jax.inference import (
    engine,
    flat_colours,
    frames,
    get_networks,
    memory,
    rendering,
    tiles,
    to_floats,
    windows,
)
from arbiscale_jax.inference import networks as networks_module
from arbiscale_jax.inference.compiled import narrow_layers
from arbiscale_jax.inference.latents import Job, upscale
from arbiscale_jax.inference.options import resolve

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


def test_chunking_changes_a_render_by_rounding_only(model, z, whole):
    other = aj.Model(model.config, model.params, model.scale_factor, tile=40)
    np.testing.assert_allclose(other.decode(z, SIZE), whole, atol=1e-5)


def test_interpolated_pixels_are_near_the_computed_ones_and_windows_are_exact(model, z):
    """Random weights have sharper edges than trained ones (benchmarks/dense.py measures those)."""

    def with_densest(most):
        config = {**model.config, "sampling": {**model.config["sampling"], "densest": most}}
        return aj.Model(config, model.params, model.scale_factor)

    size, box = (444, 900), (61, 133, 70, 300)  # 74 and 100 pixels per cell
    truth, some = model.decode(z, size), with_densest(12.0)
    found = some.decode(z, size)
    errors = [np.abs(x - truth).mean() / truth.std() for x in (found, with_densest(36.0).decode(z, size))]
    assert 0 < errors[1] < errors[0] / 2 < 0.005
    top, left, height, width = box
    np.testing.assert_array_equal(some.decode(z, size, box), found[:, top : top + height, left : left + width])
    np.testing.assert_array_equal(some.decode(z, (72, 97)), model.decode(z, (72, 97)))  # up to 12 a cell are computed


@pytest.mark.parametrize(
    "start, length, size, places", [(0, 64, 900, 36), (-7, 64, 1001, 90), (880, 64, 901, 90), (3, 5, 10**9, 64)]
)
def test_interpolation_reproduces_quadratics(start, length, size, places):
    """Keys' kernel does, so all places that a pixel needs are there, at their own positions."""
    first, count = models.dense_span(start, length, size, places)
    weights = models.interpolation(start, length, size, places)
    assert weights.shape == (length, count)
    at = (np.arange(first, first + count) + 0.5) / places - (start + 0.5) / size  # of the picture's side
    pixels = np.arange(length) / size
    scale = places / count  # positions of the places as numbers about 1
    for power in range(3):
        np.testing.assert_allclose(weights @ (at * scale) ** power, (pixels * scale) ** power, atol=2e-6)


def test_a_window_far_out_in_a_huge_image(model, z):
    size, box = (200_000, 300_000), (199_995, 123_456, 5, 7)
    found = model.decode(z, size, box)
    assert found.shape == (2, 5, 7, 3)
    assert np.all(np.abs(np.diff(found, axis=2)).max((1, 2, 3)) > 0)  # neighbours still differ
    np.testing.assert_array_equal(found[:, 1:, 2:], model.decode(z, size, (199_996, 123_458, 4, 5)))


def test_decode_divides_by_the_scale_factor(model, z):
    scaled = aj.Model(model.config, model.params, 0.5)
    np.testing.assert_allclose(scaled.decode(z * 0.5, (20, 20)), model.decode(z, (20, 20)), atol=1e-5)
    x = to_floats(np.repeat(IMAGE, 4, axis=0)[None, :, :8][0])[None]
    np.testing.assert_allclose(scaled.encode(x), 0.5 * model.encode(x), atol=1e-6)


def test_upscaling_gives_the_stated_size_and_type(model):
    found = model.upscale(IMAGE, scale=3.7, steps=2)
    assert found.shape == (round(3.7 * 6), round(3.7 * 9), 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, model.upscale(IMAGE, size=found.shape[:2], steps=2))
    deep = model.upscale(IMAGE.astype(np.uint16) * 257, scale=3.7, steps=2)
    assert deep.dtype == np.uint16
    np.testing.assert_allclose(deep / 257, found, atol=0.51)


def test_upscaling_gives_back_the_kind_that_it_got(model, tmp_path):
    """All kinds of the same picture have the same result."""
    options, alpha = dict(scale=2, steps=1), np.full((6, 9, 1), 128, np.uint8)
    colours, grey = model.upscale(IMAGE, **options), model.upscale(IMAGE[..., 0], **options)
    assert colours.shape == (12, 18, 3) and grey.shape == (12, 18) and grey.dtype == np.uint8
    np.testing.assert_array_equal(model.upscale(IMAGE[..., :1], **options), grey[..., None])
    of_equal_channels = model.upscale(np.repeat(IMAGE[..., :1], 3, axis=2), **options)
    np.testing.assert_array_equal(of_equal_channels, np.repeat(grey[..., None], 3, axis=2))
    both = model.upscale(np.concatenate([IMAGE, alpha], 2), **options)
    np.testing.assert_array_equal(both, np.concatenate([colours, np.full((12, 18, 1), 128)], 2))

    floats = model.upscale(IMAGE / np.float32(255), **options)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats * 255, colours, atol=0.51)
    several = model.upscale(IMAGE[..., 0] / 255, samples=2, **options)
    assert several.shape == (2, 12, 18) and several.dtype == np.float64

    pillow, exif = Image.fromarray(np.rot90(IMAGE)), Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    pillow.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        found = model.upscale(opened, **options)
    assert found.mode == "RGB"
    np.testing.assert_array_equal(found, colours)
    found = model.upscale(Image.fromarray(IMAGE[..., 0]), samples=2, **options)
    assert [one.mode for one in found] == ["L", "L"]
    np.testing.assert_array_equal(found[0], grey)
    np.testing.assert_array_equal(model.upscale(tmp_path / "a.png", **options), colours)
    np.testing.assert_array_equal(model.upscale(aj.read(tmp_path / "a.png"), **options), colours)
    assert model.upscale_latent(IMAGE[..., 0], steps=1).shape == (1, 12, 18, 3)


def test_even_areas_keep_their_colours(model, monkeypatch):
    even = np.full((40, 44, 3), (250, 30, 120), np.uint8)
    even[:, 22:] = (20, 200, 90)
    x = to_floats(even)
    shifted = 0.9 * x + np.float32(0.04)  # up to 18 levels
    finer = shifted.repeat(flat_colours.FINER, 0).repeat(flat_colours.FINER, 1)
    found = flat_colours.fit(x, finer, flat_colours.evenness(x))
    large, view = tiles.to_integers(shifted.repeat(4, 0).repeat(4, 1)), tiles.View((160, 176), (0, 0, 160, 176))
    [after] = flat_colours.apply(found, iter([large]), view)
    off = np.abs(after.astype(int) - even.repeat(4, 0).repeat(4, 1))
    assert np.abs(large.astype(int) - even.repeat(4, 0).repeat(4, 1)).max() > 15 and off.mean() < 1 and off.max() < 6
    [window] = flat_colours.apply(found, iter([large[50:90, 60:120]]), view._replace(box=(50, 60, 40, 60)))
    np.testing.assert_array_equal(window, after[50:90, 60:120])
    assert flat_colours.fit(x, x.repeat(2, 0).repeat(2, 1), flat_colours.evenness(x)) is None
    monkeypatch.setattr(flat_colours, "ROWS", 7)
    np.testing.assert_array_equal(found, flat_colours.fit(x, finer, flat_colours.evenness(x)))

    z = model.upscale_latent(IMAGE, steps=1)  # noise, which is left as it is
    np.testing.assert_array_equal(model.upscale(IMAGE, 4, steps=1), model.render(z, (24, 36))[0])
    image = even[:8, 18:28]
    [(_, _, rows)] = model.upscale_each([image], [(32, 40)], box=(5, 9, 20, 30), steps=1)
    np.testing.assert_array_equal(np.concatenate(list(rows)), model.upscale(image, 4, steps=1)[5:25, 9:39])


def test_the_decoder_runs_once_for_the_colours_and_the_result(model, monkeypatch):
    images, calls, compute = (
        [np.full((8, 10, 3), level, np.uint8) for level in (40, 200)],
        [],
        rendering.compute_features,
    )
    assert all(flat_colours.evenness(to_floats(image)).mean() > flat_colours.LEAST_SHARE for image in images)
    monkeypatch.setattr(rendering, "compute_features", lambda *args: calls.append(args) or compute(*args))
    for _, _, rows in model.upscale_each(images, [(32, 40), (16, 20)], steps=1):
        list(rows)
    assert len(calls) == len(images)


def test_colours_under_clear_pixels_do_not_count(model):
    """Alpha is interpolated, in windows as in the whole, and what shows does not depend on what does not."""
    alpha = np.zeros((6, 9, 1), np.uint8)
    alpha[:, 4:] = 255
    other = np.where(alpha > 0, IMAGE, IMAGE[::-1])
    options = dict(scale=4, steps=1)
    found, again = (model.upscale(np.concatenate([one, alpha], 2), **options) for one in (IMAGE, other))
    np.testing.assert_array_equal(found, again)
    assert (found[:, :12, 3] == 0).all() and (found[:, 24:, 3] == 255).all()
    assert (np.diff(found[0, 12:20, 3].astype(int)) >= 0).all()
    box, image = (5, 7, 11, 13), np.concatenate([IMAGE, alpha], 2)
    [(_, _, rows)] = model.upscale_each([image], [(24, 36)], box=box, steps=1)
    np.testing.assert_array_equal(np.concatenate(list(rows)), found[5:16, 7:20])


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
    c = np.roll(z, 1, axis=2)
    path, z_t = diffusion.ddim_trajectory(4, model.alpha_bar), z
    for t, (a, b) in zip(path.t, pairwise(path.alpha_bar), strict=True):
        z_t = diffusion.ddim_step(z_t, model.denoise(z_t, int(t), c), a, b)
    np.testing.assert_allclose(model.sample(z, c, steps=4), z_t, atol=2e-5)


def test_sampling_may_start_from_the_noised_condition(model):
    c = model.condition(to_floats(IMAGE)[None])
    first = diffusion.first_time(3, 1000, 0.3)
    cells = np.stack(np.meshgrid([0], np.arange(12), np.arange(18), indexing="ij"), axis=-1)  # answer 0
    noise = diffusion.cell_noise(jax.random.key(2), cells, 0, 3)
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
def test_a_border_is_what_d_sees_of_a_reflected_latent(model, z, side):
    config = {**model.config, "sampling": {**model.config["sampling"], "border": 4}}
    bordered, mode = aj.Model(config, model.params, model.scale_factor), "reflect" if side > 4 else "edge"

    def widened(x, n):  # [.. h w c]
        rows, cols, rest = ((n, n), (0, 0), (0, 0)), ((0, 0), (n, n), (0, 0)), ((0, 0),) * (np.ndim(x) - 3)
        return np.pad(np.pad(x, (*rest, *rows), mode), (*rest, *cols), "reflect")

    z = z[:, :side]
    found = bordered.decode(z, (8 * side, 72))
    plain = model.decode(widened(z, 4), (8 * (side + 8), 8 * 17), (32, 32, 8 * side, 72))
    np.testing.assert_allclose(found[:, 4:-4, 4:-4], plain[:, 4:-4, 4:-4], atol=1e-5)  # f_theta knows no cell outside


def test_f_theta_is_told_no_cell_size_beyond_the_bounds(model, z):
    def bounded(low, high):
        sampling = {**model.config["sampling"], "cell_min": low, "cell_max": high}
        return aj.Model({**model.config, "sampling": sampling}, model.params, model.scale_factor).decode(z, (48, 72))

    plain = model.decode(z, (48, 72))  # a cell is 2 * 6 / 48 = 0.25
    np.testing.assert_array_equal(bounded(0.2, 0.3), plain)
    net, params = models.build_first_stage(model.config), {"params": model.params["first_stage"]}
    rows, cols = models.axis(6, 48), models.axis(9, 72)
    rows, cols = (one._replace(cell=np.float32(0.5)) for one in (rows, cols))
    expected = net.apply(params, z / model.scale_factor, rows, cols, method="render")
    np.testing.assert_allclose(bounded(0.5, 0.0), expected, atol=1e-4)
    assert np.abs(expected - plain).max() > 1e-3


# --- windows, and pictures in arrays of fixed shapes ---


@pytest.mark.parametrize("length, most", [(90, 128), (300, 128), (1000, 130), (128, 128), (129, 128), (77, 24)])
@pytest.mark.parametrize("overlap", [windows.Overlap(16, 32), windows.Overlap(9, 0, 4)])
def test_windows_divide_an_axis_evenly_and_their_shares_sum_to_one(length, most, overlap):
    length -= length % overlap.multiple
    found, places = windows.cut(length, most, overlap), np.arange(length) + 0.5
    total, margin = np.zeros(length), overlap.dead + overlap.ramp // 2
    for window in found:
        assert 0 <= window.start and window.stop <= length
        assert window.length <= max(most, 4 * (margin + overlap.multiple)) and window.start % overlap.multiple == 0
        shares = window.weights(places)
        seen = np.flatnonzero(shares)
        assert seen[0] - window.start >= overlap.dead or window.start == 0
        assert window.stop - 1 - seen[-1] >= overlap.dead or window.stop == length
        total += shares
    np.testing.assert_allclose(total, 1, atol=1e-6)
    sides = [window.last - window.first for window in found]
    assert max(sides) - min(sides) <= max(overlap.multiple, 1) and (len(found) > 1) == (length > max(most, 4 * margin))


def test_sheets_hold_each_part_once_with_gaps_between():
    parts = [(int(h), int(w)) for h, w in np.random.default_rng(0).integers(3, 60, (40, 2))]
    sheet = frames.best_sheet(parts, 4, 8, 400)
    places = frames.pack(parts, sheet, 4)
    boxes = [(at.sheet, at.top, at.left, height, width) for at, (height, width) in zip(places, parts, strict=True)]
    shape = (1 + max(at.sheet for at in places), *sheet)
    grown = [(n, max(0, y - 3), max(0, x - 3), h + 3, w + 3) for n, y, x, h, w in boxes]
    inside = [frames.rectangles(shape, [box]) for box in boxes]
    assert np.all(sum(one.astype(int) for one in inside) <= 1)  # none lies on another
    assert sum(one.sum() for one in inside) == sum(h * w for h, w in parts)  # none is cut off
    for own, near in zip(inside, (frames.rectangles(shape, [box]) for box in grown), strict=True):
        assert not any((near & other).any() for other in inside if other is not own)
    assert all(y % 4 == x % 4 == 0 for _, y, x, _, _ in boxes)
    assert sum(h * w for h, w in parts) > 0.6 * np.prod(shape)  # little is left empty


PHOTO = np.random.default_rng(1).integers(0, 256, (38, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("border, height", [(0, 7), (4, 2)])  # 2: too small to reflect, the edge is repeated
def test_a_picture_in_a_larger_array_gets_the_values_of_its_own_size(model, border, height):
    """Masked norms and convolutions, the U-Net's reflection, E's interpolation and back-projection."""
    sampling = {**model.config["sampling"], "border": border, "start": 0.0}
    model = aj.Model({**model.config, "sampling": sampling}, model.params, model.scale_factor)
    options = resolve(model.config, dict(steps=2, eta=1.0, refine=1))
    image, networks, params = PHOTO[:height, :11], model.engine.networks, model.engine.params
    [(_, found)] = upscale(model.engine, Job([image], [0, 3], options, 5))
    width, edge, mode = border // 2, border, "reflect" if height > 2 else "edge"  # two cells per pixel
    plain = np.pad(np.pad(image, ((width, width), (0, 0), (0, 0)), mode), ((0, 0), (width, width), (0, 0)), "reflect")
    c = networks.condition(params, to_floats(plain)[None])
    cells = np.stack(np.meshgrid([0], *(np.arange(n) - edge for n in c.shape[1:3]), indexing="ij"), axis=-1)
    for answer, number in zip(found, (0, 3), strict=True):
        given = given_cells(c, cells + np.array([number, 0, 0]).reshape(1, 1, 1, 3))
        z_0 = networks.sample(params, networks.first_latent(given), given, options=options._replace(start=1.0))
        z = networks.refine(params, z_0, c)[0]
        z = z[edge : z.shape[0] - edge, edge : z.shape[1] - edge]
        np.testing.assert_allclose(answer, z, atol=2e-4)


def given_cells(c, cells):
    return networks_module.Given(c, None, cells, jax.random.key(5))


def test_pictures_of_all_sizes_share_a_few_programs(model):
    options, rng = dict(steps=1, seed=2), np.random.default_rng(3)
    sides = rng.integers(13, 16, (12, 2))
    pictures = [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides]
    networks = aj.Model(model.config, model.params).engine.networks
    before = networks.run_evaluations._cache_size(), networks.run_features._cache_size()
    sizes = [tuple(3 * side for side in picture.shape[:2]) for picture in pictures]
    for _, _, rows in aj.Model(model.config, model.params).upscale_each(pictures, sizes, **options):
        assert sum(len(part) for part in rows)
    after = networks.run_evaluations._cache_size(), networks.run_features._cache_size()
    assert after[0] - before[0] <= 1 and after[1] - before[1] <= 1  # all lie in arrays of 16 x 16 pixels
    assert get_networks(model.config) is networks  # another model of this configuration compiles nothing


def test_answers_in_batches_over_devices_are_those_made_one_by_one(model, monkeypatch):
    """Six units in a batch of eight on two devices, as on accelerators; one at a time on a CPU."""
    job = Job([PHOTO[:7, :11], PHOTO[10:16, :15]], range(3), resolve(model.config, dict(steps=2, eta=1.0, refine=1)), 7)
    alone = dict(upscale(model.engine, job))
    monkeypatch.setattr(engine, "CELLS_AT_ONCE", {"cpu": 2**18})
    spread = engine.spread(model.engine, jax.devices())
    for one, cells, wanted, num in (
        *((model.engine, 1024, 1, 1), (model.engine, 1024, 7, 8), (model.engine, 2**15, 64, 8)),
        *((model.engine, 2**19, 5, 1), (spread, 2**19, 5, 2), (spread, 1024, 1, 1), (spread, 2**15, 64, 8)),
    ):
        assert one.at_once(cells, wanted) == num, (cells, wanted)
    together = dict(upscale(spread, job))
    for i in (0, 1):
        np.testing.assert_allclose(together[i], alone[i], atol=2e-4)


def test_windows_with_statistics_of_their_own_differ_little_and_blend(model, monkeypatch):
    monkeypatch.setattr(windows, "DEAD", 2)
    monkeypatch.setattr(windows, "RAMP", 4)
    done, options = [], dict(steps=1, seed=0, statistics="window")
    job = Job([PHOTO[:24, :14]], range(2), resolve(model.config, options), 0, lambda *now: done.append(now))
    [(_, whole)] = upscale(model.engine, job)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]  # for each answer the condition and a step
    [(_, parts)] = upscale(model.engine, job, 16)
    assert parts.shape == whole.shape == (2, 48, 28, 3) and done[-1] == (12, 12)  # three windows, two answers
    assert np.corrcoef(parts.ravel(), whole.ravel())[0, 1] > 0.9
    z = whole[0]
    view = tiles.View((95, 57), (0, 0, 95, 57), "float32", "window")
    one, blocks = (rendering.Renderer(model.engine, z, view, most) for most in (None, 20))
    assert len(one.rows) == 1 and len(blocks.rows) == 4
    a, b = (np.concatenate([rows for _, rows in renderer.bands()]) for renderer in (one, blocks))
    assert a.shape == b.shape == (95, 57, 3) and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_a_window_that_does_not_fit_is_halved(model, monkeypatch):
    from arbiscale_jax.inference import latents

    tried, real = [], latents.make_piles

    def make_piles(config, plan, shapes):
        tried.append(plan.most)
        if plan.most > 128:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
        return real(config, plan, shapes)

    monkeypatch.setattr(latents, "make_piles", make_piles)
    job = Job([PHOTO], [0], resolve(model.config, dict(steps=1)), 0)
    with pytest.warns(UserWarning, match="too little memory; going on in windows of at most 128 pixels"):
        [(number, z)] = upscale(model.engine, job, 256)
    assert tried == [256, 128] and number == 0 and z.shape == (1, 76, 60, 3)


def test_a_batch_that_does_not_fit_becomes_smaller(model, monkeypatch):
    from arbiscale_jax.inference import latents

    tried, real = [], latents.denoise

    def denoise(engine, given, options, advance):
        tried.append(len(given.c))
        if len(given.c) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
        return real(engine, given, options, advance)

    monkeypatch.setattr(latents, "denoise", denoise)
    monkeypatch.setattr(engine, "CELLS_AT_ONCE", {"cpu": 2**14})
    job = Job([IMAGE], [0, 1], resolve(model.config, dict(steps=1)), 0)
    with pytest.warns(UserWarning, match="too little memory"):
        [(_, z)] = upscale(model.engine, job)
    assert tried[0] == 8 and tried[-2:] == [1, 1] and z.shape == (2, 12, 18, 3)


def test_how_a_render_is_divided_does_not_change_with_the_free_memory(model, z, monkeypatch):
    view = tiles.View(SIZE, (0, 0, *SIZE))
    before = rendering.Renderer(model.engine, z[0], view)
    monkeypatch.setattr(memory, "free_memory", lambda: 1)
    monkeypatch.setattr(windows, "DEAD", 1)
    after = rendering.Renderer(model.engine, z[0], view)
    assert (before.rows, before.cols) == (after.rows, after.cols)
    assert 0 < memory.lasting_memory() <= min(memory.LASTING, memory.physical_memory() // 2)


def test_free_memory_is_the_least_that_the_system_and_the_group_leave(tmp_path):
    assert 0 < memory.free_memory() <= memory.physical_memory()
    assert memory.left_by_group(tmp_path) is None
    for name, text in (("max", "8000"), ("current", "7900"), ("stat", "anon 1\ninactive_file 7000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.left_by_group(tmp_path) == 7100  # the cache of files is free
    (tmp_path / "memory.stat").unlink()
    assert memory.left_by_group(tmp_path) == 100
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.left_by_group(tmp_path) is None
    assert memory.largest_side(1000, 10**9) == 608 and memory.largest_side(10**9, 10**9) == memory.LEAST


@pytest.mark.parametrize("parts", [{"encoder"}, {"decoder", "liif"}, {"encoder", "decoder"}])
def test_parts_of_a_model_compute_in_few_bits(model, parts):
    first = {part: weights for part, weights in model.params["first_stage"].items() if part in parts}
    narrow = narrow_layers(get_networks(model.config, "bfloat16"), {"first_stage": first})
    computed = parts - ({"decoder"} if "liif" not in parts else set())  # D alone renders nothing
    assert {place[1] for place in narrow} | {"liif"} == computed | {"liif"}


def test_networks_are_pure_functions_for_jit_grad_and_vmap(model, z):
    networks, params = model.engine.networks, model.engine.params
    rows, cols = tiles.Lines(models.axis(6, 10)), tiles.Lines(models.axis(9, 14))

    def loss(z):
        return jnp.mean(jnp.square(networks.tile(params, networks.features(params, z), rows, cols)))

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(z[:1]))
    assert abs(value - np.mean(np.square(model.decode(z[:1], (10, 14))))) < 1e-5
    way = np.asarray(jax.random.normal(jax.random.key(1), slope.shape))
    ahead, behind = (jax.jit(loss)(z[:1] + step * way) for step in (1e-2, -1e-2))
    assert abs((ahead - behind) / 2e-2 - np.vdot(slope, way)) < 2e-2 * abs(np.vdot(slope, way)) + 1e-4

    def eps(one):
        return networks.eps(params, one[None], jnp.array([300]), one[None])[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(eps))(z), model.denoise(z, 300, z), atol=1e-4)


def test_a_render_may_come_in_parts(model, z):
    whole = model.render(z, (150, 97))
    rows = list(model.render_rows(z[1], (150, 97)))
    np.testing.assert_array_equal(np.concatenate(rows), whole[1])


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
    z, done = free.generate_latent(3, seed=1), []
    [(numbers, latents)] = free.generate_each(3, {2}, seed=1, progress=lambda *at: done.append(at))
    assert numbers == [2] and done == [(1, 2), (2, 2)]  # evaluations, of the batches that are wanted
    np.testing.assert_array_equal(latents, z[2:])
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
        (lambda m, z: m.upscale(IMAGE[None], scale=2), r"what was given is an array \[1x6x9x3\] of uint8"),
        (lambda m, z: m.upscale(IMAGE.astype(np.float32), scale=2), r"lie in \[0, 1\], but"),
        (lambda m, z: m.upscale(IMAGE.astype(np.int64), scale=2), "what was given is an array of int64"),
        (lambda m, z: m.upscale(None, scale=2), "what was given is NoneType"),
        (lambda m, z: m.upscale("nowhere.png", scale=2), "no image file nowhere.png"),
        (lambda m, z: m.upscale(IMAGE, scale=2, samples=0), "samples is a whole number >= 1"),
        (lambda m, z: m.upscale(IMAGE, scale=2, seed=-1), "seed is a whole number >= 0"),
        (lambda m, z: m.upscale(IMAGE, scale=2, seed=1.0), "seed is a whole number >= 0, got 1.0"),
        (lambda m, z: m.sample(z, z, seed=-1), "seed is a whole number >= 0"),
        (lambda m, z: m.upscale(IMAGE, scale=2, steps=0), "from 1 to 1000"),
        (lambda m, z: m.upscale(IMAGE, scale=2, sampler="euler"), "ddim, dpmpp"),
        (lambda m, z: m.upscale(IMAGE, scale=2, start=float("nan")), r"lies in \(0, 1\]"),
        (lambda m, z: m.sample(z, z, start=0.0), r"lies in \(0, 1\]"),
        (lambda m, z: m.render(z, (0, 5)), "whole numbers of pixels"),
        (lambda m, z: m.render(z, (5.5, 5)), "whole numbers of pixels"),
        (lambda m, z: m.render(z, (9, 9), box=(5, 5, 5, 1)), "does not lie inside"),
        (lambda m, z: m.render(z[..., :2], (9, 9)), r"Latents are \[b, h, w, 3\]"),
        (lambda m, z: m.render(z[:, :0], (9, 9)), r"Latents are \[b, h, w, 3\], got \[2, 0, 9, 3\]"),
        (lambda m, z: m.denoise(z, 5), "needs a condition"),
        (lambda m, z: m.denoise(z[..., :2], 5, z), r"Latents are \[b, h, w, 3\], got \[2, 6, 9, 2\]"),
        (lambda m, z: m.sample(z, z[:, 1:]), r"shape of the latents, \[2, 6, 9, 3\], got \[2, 5, 9, 3\]"),
        (lambda m, z: m.condition(IMAGE), r"Images are float32 \[b, H, W, 3\]"),
        (lambda m, z: aj.load("c" * 300), "cannot be opened as a model"),
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
