"""Examples made on the devices: filters and JPEG against Pillow, damage, tiles, drawings, batches."""

import io
import math
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from image_files import pixels
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from arbiscale_jax.data import synthesis
from arbiscale_jax.data.synthesis import drawings
from arbiscale_jax.data.synthesis.damage import CLEAN, HEAVY, LIGHT, LIGHT_RANGES, blur, damage, one_round
from arbiscale_jax.data.synthesis.dice import make_dice
from arbiscale_jax.data.synthesis.examples import make_batch, make_example
from arbiscale_jax.data.synthesis.filters import BOX, CUBIC, LANCZOS, SINC, TRIANGLE, filter_matrix, grid, resample
from arbiscale_jax.data.synthesis.jpeg import jpeg
from arbiscale_jax.data.synthesis.pairs import number_of_pairs
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config

R = Image.Resampling
PHOTO = skimage.data.coffee()[60:188, 200:328]  # 128 128 3
VARIANT = synthesis.Variant(lr_size=16, patch=24, scale_min=2.0, scale_max=4.0, share=1.0, region=64)
EXACT = synthesis.Variant(lr_size=16, patch=24, scale_min=4.0, scale_max=4.0, share=1.0, region=64)
SETTINGS = synthesis.Settings()
PLAIN = SETTINGS._replace(damage=False, augment=False)


@pytest.fixture(scope="module")
def store():
    return synthesis.make_store([([skimage.data.coffee(), skimage.data.astronaut()], 1.0)], 96)


@pytest.fixture(scope="module")
def program():
    """A batch of 4, compiled once; of several keys, one after another."""
    make = jax.jit(make_batch, static_argnums=(2, 3, 4))

    def draw(first, store, variant, settings, keys=1):
        all_of = [make(jax.random.key(first + i), store, variant, 4, settings) for i in range(keys)]
        return jax.device_get({name: np.concatenate([one[name] for one in all_of]) for name in all_of[0]})

    return draw


def pillow_resize(x, count, kernel):
    """Resizes x [h w 3] by Pillow without rounding to 8 bits."""
    channels = [Image.fromarray(np.ascontiguousarray(x[..., c])).resize((count, count), kernel) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], 2)


@partial(jax.jit, static_argnums=(1, 2))
def resize(x, count, kernel):
    matrices = [filter_matrix(grid(count, size / count), size / count, kernel, size) for size in x.shape[:2]]
    return resample(x, *matrices)


@pytest.mark.parametrize(
    "kernel, pillow", [(CUBIC, R.BICUBIC), (LANCZOS, R.LANCZOS), (TRIANGLE, R.BILINEAR), (BOX, R.BOX)]
)
def test_filters_resize_as_pillow_does(kernel, pillow):
    for count in (32, 256) if kernel == BOX else (50, 200):  # Pillow's box shifts at broken factors
        x = PHOTO.astype(np.float32)
        np.testing.assert_allclose(resize(x, count, kernel), pillow_resize(x, count, pillow), atol=0.05)


@pytest.mark.parametrize("kernel", [CUBIC, LANCZOS, BOX, TRIANGLE, SINC])
def test_a_kernel_may_be_traced_and_rows_sum_to_one(kernel):
    known, traced = (filter_matrix(grid(13, 2.3), 2.3, k, 30) for k in (kernel, jnp.asarray(kernel)))
    np.testing.assert_array_equal(known, traced)
    np.testing.assert_allclose(known.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_pillows(quality, subsample):
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    theirs = pixels(buffer).astype(np.float32)
    mine = 255 * np.asarray(jax.jit(jpeg)(PHOTO / np.float32(255), quality, subsample))
    assert np.abs(mine - theirs).mean() < 1.0

    def psnr(x):
        return 10 * math.log10(255**2 / np.mean((x - PHOTO) ** 2))

    assert abs(psnr(mine) - psnr(theirs)) < 0.1


def test_a_turned_blur_has_its_covariance():
    dot = np.zeros((41, 41, 3), np.float32)
    dot[20, 20] = 1
    out = np.asarray(blur(dot, jnp.array([2.0, 1.0]), math.pi / 6))[..., 0]
    y, x = np.mgrid[-20:21, -20:21]
    along, across = x * math.cos(math.pi / 6) + y * 0.5, y * math.cos(math.pi / 6) - x * 0.5
    moments = [(out * v).sum() for v in (1, x, y, along**2, across**2, along * across)]
    np.testing.assert_allclose(moments, [1, 0, 0, 4, 1, 0], atol=0.02)


def blob(size, centre, sigma):
    y, x = np.mgrid[0:size, 0:size]
    one = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(one[..., None], 3, 2).astype(np.float32)


def centre_of(x):
    y, x_axis = np.mgrid[0 : x.shape[1], 0 : x.shape[2]]
    mass = x.mean((0, 3))  # the mean over the draws
    return np.array([(mass * y).sum(), (mass * x_axis).sum()]) / mass.sum()


STILL = {"noise_prob": 0.0, "jpeg_prob": 0.0, "blur_prob": 0.9, "ringing_prob": 0.5}


def test_damage_moves_nothing():
    origin, pitch, n = np.array([10.0, 14.5], np.float32), 3.3, 24
    middle = origin + n * pitch / 2 - 0.5
    ranges = LIGHT_RANGES._replace(**STILL), synthesis.DamageRanges(**STILL)

    def one(key, amount):
        return damage(key, blob(128, middle, 7.0), origin, pitch, n, amount, ranges)[1]

    draw = jax.jit(jax.vmap(one, (0, None)))
    for amount in (CLEAN, LIGHT, HEAVY):
        out = np.asarray(draw(jax.random.split(jax.random.key(0), 24), amount))
        np.testing.assert_allclose(centre_of(out), (n - 1) / 2, atol=0.05)
        single = np.stack([centre_of(one[None]) for one in out])
        assert np.abs(single - (n - 1) / 2).max() < 0.2  # 8 bits and the border that a wide blob reaches


def test_a_round_moves_nothing():
    x = blob(32, (15.5, 15.5), 3.0)
    ranges = synthesis.DamageRanges(**STILL, sharpen_prob=0.5)
    draw = jax.jit(jax.vmap(lambda key: one_round(make_dice(key, 40), jnp.zeros_like(x), x, ranges, 1.0)))
    np.testing.assert_allclose(centre_of(np.asarray(draw(jax.random.split(jax.random.key(1), 24)))), 15.5, atol=2e-3)


def test_strength_is_zero_for_clean_pictures_alone(store, program):
    clean = program(0, store, VARIANT, SETTINGS, keys=5)
    lr, reduced = (np.asarray(clean[name]) for name in ("lr", "clean_lr"))
    rms = 127.5 * np.sqrt(np.mean((lr - reduced) ** 2, axis=(1, 2, 3)))
    strength = np.asarray(clean["strength"])
    damaged = strength > 0
    assert 8 <= damaged.sum() <= 18
    np.testing.assert_allclose(strength[damaged], np.minimum(rms[damaged] / 20, 1), rtol=1e-3)
    assert rms[~damaged].max() < 8 and np.median(rms[~damaged]) < 1  # another filter, or eight bits


def test_examples_depend_on_key_and_number_alone(store, program):
    four, again = (program(3, store, VARIANT, SETTINGS) for _ in range(2))
    make = jax.jit(make_batch, static_argnums=(2, 3, 4))
    two = make(jax.random.key(3), store, VARIANT, 2, SETTINGS)
    for name, values in four.items():
        np.testing.assert_array_equal(values, again[name])
        np.testing.assert_allclose(values[:2], two[name], atol=1e-5)
    assert not np.array_equal(four["lr"][0], four["lr"][1])


def test_values_shapes_and_windows(store, program):
    batch = program(4, store, VARIANT, SETTINGS, keys=4)
    shapes = {"lr": (16, 16, 3), "clean_lr": (16, 16, 3), "image": (64, 64, 3), "target": (24, 24, 3)}
    for name, shape in shapes.items():
        x = batch[name]
        assert x.shape == (16, *shape) and x.dtype == np.float32 and np.isfinite(x).all() and np.abs(x).max() <= 1
    np.testing.assert_allclose(batch["lr"] * 127.5 + 127.5, np.rint(batch["lr"] * 127.5 + 127.5), atol=1e-4)
    size, start, strength = (batch[name] for name in ("target_size", "target_start", "strength"))
    assert size.dtype == start.dtype == np.int32 and (32 <= size).all() and (size <= 64).all()
    edge = np.minimum(4, (size - 24) // 2)[:, None]
    assert (start >= edge).all() and (start + 24 + edge <= size[:, None]).all()
    assert 4 <= (size % 16 == 0).sum() < 16  # about half are whole scales
    assert (0 <= strength).all() and (strength <= 1).all()


def test_truth_at_the_pixels_of_the_source_is_the_source(store):
    make = jax.jit(make_example, static_argnums=(2, 3))
    for seed in range(6):  # N = R leaves one output pixel per source pixel
        out = jax.device_get(make(jax.random.key(seed), store, EXACT, PLAIN))
        (top, left), p = out["target_start"], EXACT.patch
        whole = 127.5 * out["image"] + 127.5  # at x4 the encoder's picture is the region itself
        np.testing.assert_allclose(whole, np.rint(whole), atol=1e-3)
        np.testing.assert_allclose(out["target"], out["image"][top : top + p, left : left + p], atol=1e-6)
        assert any((tile == np.uint8(np.rint(whole))[:1, :1]).all(-1).any() for tile in store.tiles)
        np.testing.assert_allclose(
            127.5 * out["clean_lr"] + 127.5, pillow_resize(whole, 16, R.BICUBIC).clip(0, 255), atol=0.02
        )
        np.testing.assert_array_equal(out["lr"], out["clean_lr"])
        assert out["strength"] == 0 and out["target_size"] == 64


def test_window_picture_and_input_show_the_same_place(program):
    """On a linear ramp each sample tells its position: all pictures must agree on it, at any scale."""
    ramp = np.repeat((np.arange(96)[:, None] + np.zeros((1, 96)))[..., None], 3, 2).astype(np.uint8)
    store = synthesis.make_store([([ramp], 1.0)], 96)
    variant = VARIANT._replace(scale_max=3.7, region=80)
    batch = program(5, store, variant, PLAIN, keys=3)
    rows = {name: 127.5 * batch[name][:, :, 0, 0] + 127.5 for name in ("image", "clean_lr", "target")}  # b m
    inside = slice(3, -3)  # away from the border of the tile
    for i, size in enumerate(batch["target_size"]):
        u = (np.arange(64) + 0.5)[inside] / 64
        slope, first = np.polyfit(u, rows["image"][i, inside], 1)
        np.testing.assert_allclose(
            rows["clean_lr"][i, inside], first + slope * (np.arange(16) + 0.5)[inside] / 16, atol=0.06
        )
        at = (batch["target_start"][i, 0] + np.arange(24) + 0.5) / size
        np.testing.assert_allclose(rows["target"][i, inside], (first + slope * at)[inside], atol=0.06)
        assert slope / size > 0.999  # at least a source pixel per output pixel


def test_batches_are_counted_by_step_and_divide_over_devices(store):
    variants = (VARIANT._replace(share=0.75), EXACT._replace(share=0.25))
    settings = PLAIN._replace(augment=True)
    whole = list(islice(synthesis.batches(store, variants, settings, 7, 2), 4))
    resumed = synthesis.batches(store, variants, settings, 7, 2, start_step=3)
    jax.tree.map(np.testing.assert_array_equal, whole[3], next(resumed))
    resumed.close()
    mesh = jax.make_mesh((2,), ("data",))
    place = NamedSharding(mesh, PartitionSpec("data"))
    held = jax.device_put(store, NamedSharding(mesh, PartitionSpec()))
    first = next(synthesis.batches(held, variants, settings, 7, 2, sharding=place))
    assert all(x.sharding.is_equivalent_to(place, x.ndim) for x in first.values())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), first, whole[0])


def write_pairs(root, pairs):
    for part, pictures in zip(("lr", "hr"), zip(*pairs, strict=True), strict=True):
        (root / part).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / part / f"{i}.png")


def test_pairs_show_the_same_place_and_colour(store, program, tmp_path):
    """On ramps each sample tells its position; the LR is 12 levels darker than its larger picture."""
    y, x = np.mgrid[:80, :96] + 0.5
    hr = np.stack([60 + 1.5 * y, 50 + 1.25 * x, np.full(y.shape, 100.0)], 2)
    lr = hr.reshape(20, 4, 24, 4, 3).mean((1, 3)) - 12
    pair = tuple(np.round(picture).astype(np.uint8) for picture in (lr, hr))
    write_pairs(tmp_path, [pair, pair])
    pairs = synthesis.read_pairs(str(tmp_path))
    assert pairs.lr.shape == (4, 20, 20, 3) and pairs.hr.shape == (4, 80, 80, 3) and pairs.scale == 4
    held, settings = store._replace(pairs=pairs), SETTINGS._replace(pairs=0.5)
    batch = program(3, held, EXACT, settings, keys=4)
    own = program(3, store, EXACT, settings)
    np.testing.assert_array_equal(batch["lr"][2:4], own["lr"][2:])  # the others are the examples of before
    assert not np.array_equal(batch["lr"][:2], own["lr"][:2])
    for i in (0, 1, 4, 5, 8, 9, 12, 13):
        one = {name: value[i] for name, value in batch.items()}
        (top, left), small = one["target_start"], one["clean_lr"]
        assert one["target_size"] == 64 and 0 < one["strength"] <= 12.5 / 20
        np.testing.assert_allclose(one["image"][top : top + 24, left : left + 24], one["target"], atol=1e-6)
        means = one["image"].reshape(16, 4, 16, 4, 3).mean((1, 3))
        np.testing.assert_allclose(small[2:-2, 2:-2], means[2:-2, 2:-2], atol=1.2 / 127.5)
        darker = 127.5 * (small - one["lr"])[2:-2, 2:-2]  # turned and recoloured as the picture is: by one amount
        clipped = (one["lr"] < -0.99) | (np.abs(small) > 0.99)
        darker = np.where(clipped[2:-2, 2:-2], np.nan, darker)
        assert np.all(np.isnan(darker) | (np.abs(darker - np.nanmedian(darker, (0, 1))) < 1.5))
        assert not np.isnan(darker).all()


def test_only_variants_of_the_pairs_scale_take_pairs():
    pairs = synthesis.PairStore(np.zeros((1, 20, 20, 3), np.uint8), np.zeros((1, 80, 80, 3), np.uint8))
    settings = SETTINGS._replace(pairs=0.5)
    counts = [number_of_pairs(pairs, variant, 5, settings) for variant in (VARIANT, EXACT)]
    assert counts == [2, 2] and number_of_pairs(pairs, EXACT, 1, settings) == 0
    others = VARIANT._replace(scale_max=3.9), EXACT._replace(scale_min=4.1, scale_max=5), VARIANT._replace(lr_size=21)
    assert [number_of_pairs(pairs, variant, 5, settings) for variant in others] == [0, 0, 0]
    assert number_of_pairs(pairs, EXACT, 5, settings._replace(damage=False)) == 0
    assert number_of_pairs(None, EXACT, 5, settings) == 0


def test_pairs_that_do_not_fit_are_told(tmp_path):
    lr, hr = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    write_pairs(tmp_path / "sizes", [(lr, hr), (lr, hr[:15])])
    with pytest.raises(UserError, match=r"pair 1 .*\(15, 16\).*\(16, 16\)"):
        synthesis.read_pairs(str(tmp_path / "sizes"))
    write_pairs(tmp_path / "names", [(lr, hr)])
    (tmp_path / "names" / "hr" / "0.png").rename(tmp_path / "names" / "hr" / "b.png")
    with pytest.raises(UserError, match="unpaired are 0, b"):
        synthesis.read_pairs(str(tmp_path / "names"))


def test_variants_come_in_proportion_and_interleaved():
    variants = tuple(VARIANT._replace(share=share) for share in (0.6, 0.25, 0.15))
    drawn = [variants.index(synthesis.variant_of(step, variants)) for step in range(20, 60)]
    assert [drawn[:20].count(i) for i in range(3)] == [12, 5, 3] and drawn[:20] == drawn[20:]
    assert drawn[:4].count(0) <= 3


def test_stores_cut_mirror_and_weigh():
    rng = np.random.default_rng(0)
    large, small = rng.integers(0, 256, (100, 70, 3), np.uint8), rng.integers(0, 256, (20, 40, 3), np.uint8)
    store = synthesis.make_store([([large], 3.0), ([small], 1.0)], 32)
    assert store.tiles.shape[1:] == (32, 32, 3) and store.tiles.dtype == np.uint8
    np.testing.assert_array_equal(store.tiles[0], large[:32, :32])
    np.testing.assert_array_equal(store.sizes[-1], [20, 32])
    np.testing.assert_array_equal(store.tiles[-1, 20:], small[19:7:-1, 8:])
    assert store.cumulative[-1] == 1 and (store.sizes[:, 0] == 32).sum() == len(store.sizes) - 2
    np.testing.assert_allclose(store.cumulative[-3], 0.75, atol=1e-6)
    large[:, 40:] = 9  # flat
    dense = synthesis.make_store([([large], 1.0)], 32, tiles_per_image=2)
    assert len(dense.tiles) == 2 and all((tile != 9).mean() > 0.9 for tile in dense.tiles)
    with pytest.raises(UserError, match="no picture"):
        synthesis.make_store([([], 1.0)], 32)


def test_drawings_repeat_and_differ():
    made = [drawings.drawing(1, index, 64) for index in range(4)]
    for index, one in enumerate(made):
        assert one.shape == (64, 64, 3) and one.dtype == np.uint8 and one.std() > 3
        np.testing.assert_array_equal(one, drawings.drawing(1, index, 64))
    assert not np.array_equal(made[0], made[2])
    pictures = [np.full((20, 20, 3), value, np.uint8) for value in range(9)]
    sheets = list(drawings.sheets(pictures, 0, 5, 32))
    assert len(sheets) == 2 and len({int(v) for sheet in sheets for v in np.unique(sheet)}) == 8


def config_of(**fields):
    config = get_base_config().data
    with config.ignore_type():
        config.synthesis.update(tile=64, variants=((8, 16, 2.0, 4.0, 0.8), (8, 8, 1.0, 2.0, 0.2)), **fields)
    return config


def test_a_configuration_makes_variants_settings_and_a_store(tmp_path):
    for folder in ("a", "b", "drawn"):
        (tmp_path / folder).mkdir()
        for i in range(4):
            Image.fromarray(PHOTO).save(tmp_path / folder / f"{i}.png")
    config = config_of(light=0.1, lettered=2, drawn_root=str(tmp_path / "drawn"), shares=(0.75, 0.25))
    config.update(source="folder", root=f"{tmp_path}/a,{tmp_path}/b", val_source="embedded")
    variants, settings = synthesis.from_config(config)
    assert variants[0] == synthesis.Variant(8, 16, 2.0, 4.0, 0.8, 32) and variants[1].region == 16
    assert (settings.clean, settings.light, settings.heavy) == (0.35, 0.1, 0.35)
    store = synthesis.store_from_config(config)
    assert len(store.tiles) == 8 * 9 + 3
    np.testing.assert_allclose(store.cumulative[[35, 71]], [0.9 * 0.75, 0.9], atol=1e-6)
    synthesis.from_config(get_base_config().data)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"variants": ()}, "at least one"),
        ({"variants": ((8, 16, 2.0, 4.0),)}, "five numbers"),
        ({"variants": ((8, 32, 2.0, 4.0, 1.0),)}, r"p <= n \* scale_min"),
        ({"variants": ((8, 16, 2.0, 9.0, 1.0),)}, r"n \* scale_max <= tile"),
        ({"variants": ((8, 16, 2.0, 4.0, 1.0), (8, 8, 1.0, 2.0, 0.01))}, "20th"),
        ({"clean": -0.1}, "data.synthesis.clean is a share"),
        ({"clean": 0.0, "light": 0.0, "heavy": 0.0}, "must be above 0"),
        ({"drawn_share": 1.0}, "drawn_share"),
        ({"lettered": -1}, "data.synthesis.lettered"),
        ({"pairs_root": "pairs", "pairs_share": 1.0}, "pairs_share is a share"),
        ({"pairs_root": "pairs", "whole": True}, "whole cannot be set"),
        ({"shares": (1.0, 2.0)}, "for each of the 1 folders"),
    ],
)
def test_impossible_values_are_told(fields, said):
    config = config_of(**({} if "variants" in fields else fields))
    with config.ignore_type():
        config.synthesis.update(fields)
    with pytest.raises(UserError, match=said):
        synthesis.from_config(config)
        synthesis.store_from_config(config)


def test_a_whole_picture_is_seen_whole():
    pictures = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(2)]
    store = jax.tree.map(jnp.asarray, synthesis.make_store([(pictures, 1.0)], 64))
    variant = synthesis.Variant(4, 16, 4.0, 16.0, 1.0, 64)
    settings = synthesis.Settings(damage=False, whole=True)
    make = jax.jit(make_batch, static_argnums=(2, 3, 4))
    batch = make(jax.random.key(0), store, variant, 6, settings)
    seen = [resize(np.float32(one) / 255, 16, CUBIC) for one in (*pictures, *(p[:, ::-1] for p in pictures))]
    for image in np.asarray(batch["image"]):
        assert min(np.abs(np.clip(2 * one - 1, -1, 1) - image).max() for one in seen) < 1e-3
    variants, settings = synthesis.from_config(config_of(whole=True))
    assert settings.whole and {one.region for one in variants} == {64}
