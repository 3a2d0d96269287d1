"""Sources, transforms and batches. Photographs are stood in for by smooth random pictures in temporary folders."""

import itertools
import logging
import pickle

import numpy as np
import pytest
from batches import first_batch
from PIL import Image

from arbiscale_jax import data
from arbiscale_jax.data import sources
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config

BICUBIC = Image.Resampling.BICUBIC


def picture(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """Returns a random smooth picture without symmetry, uint8 [h, w, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), BICUBIC))


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Inverts the map to [-1, 1], and checks that it was that map."""
    assert x.dtype == np.float32 and x.min() >= -1 and x.max() <= 1
    values = (x.astype(np.float64) + 1) * 127.5
    np.testing.assert_allclose(values, np.rint(values), atol=1e-3)
    return np.rint(values).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    for i in range(10):
        save(tmp_path / "photos" / f"{i % 3}" / f"{i}.png", picture(i, 36 + i, 50))
    return tmp_path / "photos"


@pytest.fixture
def config(folder):
    out = get_base_config().data
    out.update(source="folder", root=str(folder), image_size=16, lr_size=4, min_crop=0.5, transpose=True, val_num=4)
    out.update(target_min=8, target_max=24, target_patch=8)
    return out.lock()


@pytest.fixture
def take(request):
    """Returns n batches, and ends the loader after the test."""

    def take_batches(config, n, **options):
        batches = data.train_batches(config, **(dict(seed=3, batch_size=3) | options))
        request.addfinalizer(batches.close)
        return list(itertools.islice(batches, n))

    return take_batches


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def example(image, rng=0, **changes):
    fields = dict(image_size=16, lr_size=4, flip=False, transpose=False, recolor=0.0, min_crop=1.0)
    fields |= dict(target_min=16, target_max=16, target_patch=16)
    return data.example(image, np.random.default_rng(rng), data.ExampleSpec(**(fields | changes)))


# Batches


def test_batches_have_the_promised_arrays(config, take):
    for batch in take(config, 3):
        shapes = {key: (x.shape, str(x.dtype)) for key, x in batch.items()}
        assert shapes == dict(
            image=((3, 16, 16, 3), "float32"),
            lr=((3, 4, 4, 3), "float32"),
            target=((3, 8, 8, 3), "float32"),
            target_size=((3,), "int32"),
            target_start=((3, 2), "int32"),
        )
        assert all(batch[key].min() >= -1 and batch[key].max() <= 1 for key in ("image", "lr", "target"))
        assert (8 <= batch["target_size"]).all() and (batch["target_size"] <= 24).all()
        assert (0 <= batch["target_start"]).all()
        assert (batch["target_start"] + 8 <= batch["target_size"][:, None]).all()


def test_batch_k_depends_on_seed_and_k_alone(config, take):
    batches = take(config, 8)
    for a, b in zip(batches, take(config, 8), strict=True):
        assert_same(a, b)
    assert_same(batches[5], take(config, 1, start_step=5)[0])
    for a, b in itertools.combinations(batches, 2):
        assert not np.array_equal(a["image"], b["image"])
    assert not np.array_equal(batches[0]["image"], take(config, 1, seed=4)[0]["image"])
    far = take(config, 1, start_step=10**9)[0]  # at once: nothing is replayed
    assert np.isfinite(far["image"]).all()


def test_examples_do_not_depend_on_the_size_of_a_batch(config):
    """Batches of one example are those of which the stream is longest."""
    pair = first_batch(config, 3, 2)
    assert_same(first_batch(config, 3, 1), {name: x[:1] for name, x in pair.items()})


def test_worker_processes_do_not_change_the_batches(config, take):
    with config.unlocked():
        config.degradation = "real"  # everything that draws
    expected = take(config, 6)[3:]
    with config.unlocked():
        config.workers = 2
    for a, b in zip(expected, take(config, 3, start_step=3), strict=True):
        assert_same(a, b)


def test_every_image_comes_equally_often(tmp_path, take, config):
    for i in range(4):
        save(tmp_path / "flat" / f"{i}.png", np.full((16, 16, 3), 50 * i, np.uint8))
    with config.unlocked():
        config.update(root=str(tmp_path / "flat"), val_source="folder", val_root=str(tmp_path / "flat"))
    shades = np.concatenate([to_uint8(b["image"])[:, 0, 0, 0] for b in take(config, 8, batch_size=256)])
    assert np.unique(shades, return_counts=True)[1].tolist() == [512] * 4
    halves = [np.unique(half, return_counts=True)[1] for half in (shades[:1024], shades[1024:])]
    assert not np.array_equal(*halves)  # in random order


def test_the_lr_image_is_left_out_where_its_size_is_0(config, take):
    with config.unlocked():
        config.lr_size = 0
    assert "lr" not in take(config, 1)[0] and "lr" not in data.val_batch(config)


def test_embedded_photographs_hold_the_coffee_out(config, take):
    train, val = data.make_source("embedded"), data.make_source("embedded", split="val")
    assert [val.name(i) for i in range(len(val))] == ["coffee"] and val[0].shape == (400, 600, 3)
    names = [train.name(i) for i in range(len(train))]
    assert "coffee" not in names and {"astronaut", "chelsea", "rocket", "camera", "stereo_motorcycle"} < set(names)
    camera = train[names.index("camera")]
    assert camera.shape == (512, 512, 3) and (camera == camera[:, :, :1]).all()
    assert all(train[i].dtype == np.uint8 and train[i].shape[2] == 3 for i in range(len(train)))
    with config.unlocked():
        config.source = "embedded"
    crop = to_uint8(data.val_batch(config)["image"][0])
    np.testing.assert_array_equal(crop, val[0][192:208, 292:308])  # the first is the centre, at the photo's own scale


# Validation


def test_the_validation_batch_is_fixed_and_held_out(config, folder, take):
    val = data.val_batch(config)
    assert_same(val, data.val_batch(config))
    assert val["image"].shape == (4, 16, 16, 3) and val["lr"].shape == (4, 4, 4, 3)
    assert (val["target_size"] == 24).all() and (val["target_start"] == 8).all()
    crops = to_uint8(val["image"])
    assert len({crop.tobytes() for crop in crops}) == 4
    split = {s: data.make_source("folder", folder, s) for s in ("train", "val", "all")}
    names = {s: [x.name(i) for i in range(len(x))] for s, x in split.items()}
    assert len(names["val"]) == 1 and sorted(names["train"] + names["val"]) == names["all"] and len(split["all"]) == 10
    windows = np.lib.stride_tricks.sliding_window_view(split["val"][0], (16, 16), (0, 1)).transpose(0, 1, 3, 4, 2)
    for crop in crops:
        assert (windows == crop).all((2, 3, 4)).any()


def test_the_validation_target_is_whole_where_the_patch_is(config):
    with config.unlocked():
        config.update(target_min=24, target_patch=24)
    val = data.val_batch(config)
    assert (val["target_start"] == 0).all() and val["target"].shape == (4, 24, 24, 3)
    whole = Image.fromarray(to_uint8(val["image"][1])).resize((24, 24), BICUBIC)
    np.testing.assert_array_equal(to_uint8(val["target"][1]), whole)


def test_the_validation_crops_are_spread_over_a_source_of_their_own(config, tmp_path):
    for i in range(9):
        save(tmp_path / "val" / f"{i}.png", np.full((20, 20, 3), i, np.uint8))
    with config.unlocked():
        config.update(val_source="folder", val_root=str(tmp_path / "val"))
    assert to_uint8(data.val_batch(config)["image"])[:, 0, 0, 0].tolist() == [0, 2, 4, 6]


def test_the_held_out_names_do_not_depend_on_the_folder(tmp_path):
    names = {}
    for where in ("a", "b"):
        for i in range(40):
            save(tmp_path / where / f"{i}.png", np.zeros((2, 2, 3), np.uint8))
        source = data.make_source("folder", tmp_path / where, "val")
        names[where] = [source.name(i) for i in range(len(source))]
    assert names["a"] == names["b"] and len(names["a"]) == 2


def test_the_only_image_serves_both_splits(tmp_path, caplog):
    save(tmp_path / "one.png", picture(0))
    for split in ("train", "val"):
        np.testing.assert_array_equal(data.make_source("folder", tmp_path, split)[0], picture(0))
    assert len([r for r in caplog.records if "validation uses the image that is trained on" in r.message]) == 1


# Transforms


def test_the_lr_image_is_the_antialiased_bicubic_of_the_image():
    made = example(picture(0))
    image = Image.fromarray(to_uint8(made["image"]))
    np.testing.assert_array_equal(to_uint8(made["lr"]), image.resize((4, 4), BICUBIC))
    white = example(np.full((16, 16, 3), 255, np.uint8))
    assert (white["lr"] == 1).all() and (example(np.zeros((16, 16, 3), np.uint8))["lr"] == -1).all()


def test_pillows_bicubic_has_a_of_minus_one_half():
    step = np.zeros((8, 8), np.float32)
    step[:, 4] = 1
    a = -0.5
    near = (a + 2) * 0.25**3 - (a + 3) * 0.25**2 + 1  # Keys' kernel at a distance below 1, and above
    far = a * (1.25**3 - 5 * 1.25**2 + 8 * 1.25 - 4)
    up = np.asarray(Image.fromarray(step).resize((16, 16), BICUBIC))[8]
    np.testing.assert_allclose(up[[8, 6]], [near, far], atol=1e-6)


@pytest.mark.parametrize("height, width, min_crop", [(33, 60, 0.25), (16, 16, 1.0), (9, 40, 1.0)])
def test_the_target_is_a_window_of_the_resized_crop(height, width, min_crop):
    image = picture(1, height, width)
    for seed in range(20):
        window = dict(target_min=12, target_max=40, min_crop=min_crop)
        made = example(image, seed, target_patch=8, **window)
        size, (top, left) = int(made["target_size"]), made["target_start"]
        rng = np.random.default_rng(seed)  # the crop is drawn first, so that it does not depend on the target
        side = min(round(16 / rng.uniform(min_crop, 1)), height, width)
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = Image.fromarray(image[y : y + side, x : x + side])
        np.testing.assert_array_equal(to_uint8(made["image"]), crop.resize((16, 16), BICUBIC))
        whole = np.asarray(crop.resize((size, size), BICUBIC), int)
        expected = whole[top : top + 8, left : left + 8]
        assert abs(to_uint8(made["target"]).astype(int) - expected).max() <= 1  # Pillow's weights are rounded


def test_target_sizes_and_windows_cover_their_ranges():
    made = [example(picture(2), seed, target_min=8, target_max=10, target_patch=8) for seed in range(400)]
    assert {int(one["target_size"]) for one in made} == {8, 9, 10}
    at_ten = {tuple(one["target_start"].tolist()) for one in made if one["target_size"] == 10}
    assert at_ten == set(itertools.product(range(3), range(3)))


def test_min_crop_shows_up_to_its_share_more_of_the_image():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    spans = [np.ptp(to_uint8(example(ramp, seed, min_crop=0.25)["image"])[8, :, 0].astype(int)) for seed in range(200)]
    assert 14 <= min(spans) < 20 and 50 < max(spans) <= 63


def test_recoloured_channels_are_those_of_the_image_weakened_in_any_order():
    image = picture(3, 16, 16)  # as large as the crop, so that only the colours can change
    orders = set()
    for seed in range(60):
        made = to_uint8(example(image, seed, recolor=1.0)["image"]).astype(float)
        fits = []
        for k in range(3):  # which channel it was: the one that it is a multiple of
            gains = [(made[..., k] * image[..., j]).sum() / (image[..., j].astype(float) ** 2).sum() for j in range(3)]
            errors = [np.abs(made[..., k] - gains[j] * image[..., j]).max() for j in range(3)]
            fits.append(int(np.argmin(errors)))
            assert min(errors) <= 1 and 0.39 < gains[fits[-1]] < 1.01
        orders.add(tuple(fits))
    assert orders == set(itertools.permutations(range(3)))
    changed = [to_uint8(example(image, seed, recolor=0.3)["image"]).tobytes() != image.tobytes() for seed in range(100)]
    assert 15 < sum(changed) < 45


@pytest.mark.parametrize("flip, transpose, count", [(0, 0, 1), (1, 0, 2), (0, 1, 4), (1, 1, 8)])
def test_mirrored_crops_are_symmetries_of_the_square(flip, transpose, count):
    image = picture(3, 16, 16)
    bits = itertools.product([False, True], repeat=3)
    eight = [data.dihedral(image, horizontal=h, vertical=v, diagonal=d) for h, v, d in bits]
    group = {np.rot90(m, k).tobytes() for m in (image, image[:, ::-1]) for k in range(4)}
    assert {one.tobytes() for one in eight} == group and len(group) == 8
    seen = set()
    for seed in range(60):
        made = example(image, seed, flip=bool(flip), transpose=bool(transpose))
        seen.add(to_uint8(made["image"]).tobytes())
        np.testing.assert_array_equal(made["target"], made["image"])  # the target is mirrored alike
    assert len(seen) == count and seen <= group and (flip or transpose or seen == {image.tobytes()})
    assert (image[:, ::-1].tobytes() in seen) == bool(flip)


@pytest.mark.parametrize("height, width", [(1, 1), (5, 30), (16, 3)])
def test_small_images_are_enlarged(height, width):
    image = picture(4, height, width)
    side = min(height, width)
    made = example(image, min_crop=0.5)
    assert made["image"].shape == (16, 16, 3)
    crops = np.lib.stride_tricks.sliding_window_view(image, (side, side), (0, 1)).reshape(-1, 3, side, side)
    enlarged = [np.asarray(Image.fromarray(np.moveaxis(c, 0, 2).copy()).resize((16, 16), BICUBIC)) for c in crops]
    assert any(np.array_equal(to_uint8(made["image"]), one) for one in enlarged)


# Files


@pytest.mark.parametrize("mode, suffix", [("L", "png"), ("1", "png"), ("P", "gif"), ("CMYK", "tif"), ("LA", "png")])
def test_a_folder_reads_every_mode_as_rgb(tmp_path, mode, suffix):
    original = Image.fromarray(picture(5)).convert(mode)
    original.save(tmp_path / f"a.{suffix}")
    read = data.make_source("folder", tmp_path)[0]
    assert read.dtype == np.uint8 and read.shape == (40, 48, 3)
    np.testing.assert_array_equal(read, original.convert("RGB"))


def test_a_folder_reads_16_bit_grey_in_proportion(tmp_path):
    grey = np.linspace(0, 65535, 40 * 48).reshape(40, 48)
    save(tmp_path / "a.png", grey.astype(np.uint16))
    read = data.make_source("folder", tmp_path)[0].astype(int)
    assert abs(read - np.rint(grey / 257)[:, :, None]).max() <= 1


def test_transparency_is_white_and_exif_orientation_applied(tmp_path):
    rgba = np.dstack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 255, np.uint8)])
    rgba[0, :, 3] = 0
    rgba[1, :, 3] = 51
    save(tmp_path / "a" / "a.png", rgba)
    assert data.make_source("folder", tmp_path / "a")[0][:, 2, 1].tolist() == [255, 204, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the upright picture is the stored one turned clockwise
    save(tmp_path / "b" / "b.png", picture(6), exif=exif)
    np.testing.assert_array_equal(data.make_source("folder", tmp_path / "b")[0], np.rot90(picture(6), -1))


def test_the_folder_is_searched_recursively_for_images_alone(tmp_path):
    for name in ("b.PNG", "x/y/a.jpg", "x/c.webp", ".hidden.png", ".cache/d.png"):
        save(tmp_path / name, picture(7))
    (tmp_path / "notes.txt").write_text("no image")
    source = data.make_source("folder", str(tmp_path), "all")
    assert [source.name(i) for i in range(len(source))] == ["b.PNG", "x/c.webp", "x/y/a.jpg"]


def break_files(folder):
    """Adds a text, a truncated JPEG and an empty file to a folder."""
    (folder / "text.png").write_text("not a picture")
    save(folder / "cut.jpg", picture(8, 200, 200))
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "empty.png").touch()


def test_broken_files_are_reported_once_and_replaced(folder, caplog):
    break_files(folder)
    with caplog.at_level(logging.WARNING):
        source = data.make_source("folder", folder, "all")
        images = [source[i] for i in range(len(source))]
        again = [data.make_source("folder", folder, "all")[i] for i in range(len(source))]
    assert len(images) == 13
    for a, b in zip(images, again, strict=True):
        np.testing.assert_array_equal(a, b)
    names = [source.name(i) for i in range(13)]
    np.testing.assert_array_equal(images[names.index("cut.jpg")], images[names.index("0/0.png")])  # the next in order
    for name in ("text.png", "cut.jpg", "empty.png"):
        assert [r.levelno for r in caplog.records if name in r.getMessage()] == [logging.WARNING]


def test_batches_skip_broken_files_and_stay_the_same(config, folder, take):
    break_files(folder)
    batches = take(config, 5)
    assert all(batch["image"].std((1, 2, 3)).min() > 0.05 for batch in batches)
    assert_same(batches[4], take(config, 1, start_step=4)[0])


def test_both_splits_have_a_readable_image_where_two_exist(tmp_path):
    save(tmp_path / "a.png", picture(0))
    save(tmp_path / "b.png", picture(1))
    for i in range(60):
        (tmp_path / f"broken_{i}.png").write_text("no picture")
    train, val = (data.make_source("folder", tmp_path, split) for split in ("train", "val"))
    assert not {train.name(i) for i in range(len(train))} & {val.name(i) for i in range(len(val))}
    assert not np.array_equal(train[0], val[0])


def test_large_folders_are_not_decoded_at_the_start(folder, monkeypatch):
    decoded = []
    monkeypatch.setattr(sources, "read_image", lambda path: decoded.append(path) or picture(0))
    source = data.make_source("folder", folder)
    assert len(decoded) == 2  # one in each split
    source[3], source[3]
    assert len(decoded) == 3  # and then kept
    with pytest.raises(ValueError, match="read-only"):
        source[3][:] = 0


def test_the_cache_keeps_to_its_room_and_stays_out_of_pickles(folder):
    room = picture(0, 36, 50).nbytes + 100
    source = data.make_source("folder", folder, "all", cache_bytes=room)
    images = [source[i] for i in range(len(source))]
    assert sum(x.nbytes for x in source._decoded.values()) <= room and len(source._decoded) == 1
    other = pickle.loads(pickle.dumps(source))
    assert not other._decoded and other._room == room
    np.testing.assert_array_equal(other[4], images[4])


# Mistakes


@pytest.mark.parametrize("make, message", [(lambda p: None, "does not exist"), (lambda p: p.mkdir(), "holds no image")])
def test_a_missing_or_empty_folder_is_named(tmp_path, make, message):
    make(tmp_path / "here")
    with pytest.raises(UserError, match=f"here.*{message}"):
        data.make_source("folder", tmp_path / "here")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    save(tmp_path / "a.png", picture(0))
    with pytest.raises(UserError, match=r"a\.png is a file"):
        data.make_source("folder", tmp_path / "a.png")


def test_a_folder_without_a_readable_image_is_named(tmp_path, config):
    (tmp_path / "bad").mkdir()
    break_files(tmp_path / "bad")
    with config.unlocked():
        config.root = str(tmp_path / "bad")
    for build in (lambda: data.train_batches(config, 0, 2), lambda: data.val_batch(config)):
        with pytest.raises(UserError, match="bad holds 3 images, none of them readable"):
            build()


def test_images_that_vanish_end_in_an_error(folder):
    source = data.make_source("folder", folder)
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="photos holds no image that can be read any more"):
        source[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(source="imagenet"), "data.source=imagenet; known are embedded, folder"),
        (dict(val_source="x"), "data.val_source=x; known are embedded, folder"),
        (dict(root=""), "needs a path"),
        (dict(lr_size=17), "lr_size must be at most data.image_size=16, got 17"),
        (dict(lr_size=-1), "lr_size must be at least 0"),
        (dict(image_size=0), "image_size must be at least 1"),
        (dict(target_patch=9), "target_patch <= data.target_min .* got 9, 8, 24"),
        (dict(target_max=7), "target_min <= data.target_max .* got 8, 8, 7"),
        (dict(min_crop=0.0), r"min_crop must lie in \(0, 1\], got 0.0"),
        (dict(min_crop=float("nan")), "min_crop must lie in"),
        (dict(val_num=0), "val_num must be at least 1"),
        (dict(workers=-1), "workers must be at least 0"),
    ],
)
def test_wrong_fields_are_named(config, changes, message):
    with config.unlocked():
        config.update(changes)
    for build in (lambda: data.train_batches(config, 0, 2), lambda: data.val_batch(config)):
        with pytest.raises(UserError, match=message):
            build()


@pytest.mark.parametrize("call, message", [(dict(batch_size=0), "Batch size"), (dict(start_step=-1), "first step")])
def test_wrong_arguments_are_named(config, call, message):
    with pytest.raises(UserError, match=message):
        data.train_batches(config, **(dict(seed=0, batch_size=2) | call))


def test_unknown_sources_and_splits_list_the_known():
    with pytest.raises(UserError, match="'tape'; known are embedded, folder"):
        data.make_source("tape")
    with pytest.raises(UserError, match="'test'; known are train, val, all"):
        data.make_source("embedded", split="test")
