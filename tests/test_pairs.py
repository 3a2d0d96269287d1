"""Pictures that are too small to learn from, and pairs of a picture and its given LR picture."""

import numpy as np
import pytest
from image_files import BICUBIC, picture, write
from PIL import Image

from arbiscale_jax import data
from arbiscale_jax.data import config_sources, lr_pairs, prepare, small_pictures
from arbiscale_jax.data.shards import Storage
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config


def names_of(source):
    return [source.name(i) for i in range(len(source))]


# Small pictures


def test_pictures_too_small_to_learn_from_are_left_out_by_name(tmp_path, caplog):
    write(tmp_path / "set", [f"{i}.png" for i in range(6)], height=40, width=48)
    for i in range(5):  # dots sort into the validation split by their hashes
        Image.new("RGB", (1 + i, 1)).save(tmp_path / "set" / f"dot{i}.png")
    config = get_base_config().data
    config.update(source="folder", root=str(tmp_path / "set"), image_size=64, target_max=64, val_num=1)
    assert data.val_batch(config)["image"].std() > 0.1
    assert "5 of the 11 images of the folder" in caplog.text and "below 8 pixels" in caplog.text
    assert "dot0.png, dot1.png, dot2.png and 2 more" in caplog.text
    train, val = config_sources.train_source(config, 0), config_sources.val_source(config)
    assert len(train) == 5 and len(val) == 1 and not any("dot" in name for name in names_of(train) + names_of(val))
    config.min_side = 41
    with pytest.raises(UserError, match="All 11 images of the folder .* too small to learn from.* below 41 pixels"):
        data.val_batch(config)


def test_small_pictures_of_large_folders_are_found_when_they_are_read(tmp_path, monkeypatch, caplog):
    write(tmp_path, ["a.png", "b.png", "c.png"], height=40, width=48)
    Image.new("RGB", (3, 40)).save(tmp_path / "dot.png")
    monkeypatch.setattr(small_pictures, "MOST_MEASURED", 3)
    source = data.open_source("folder", tmp_path, "all", options=data.SourceOptions(least=8))
    assert len(source) == 4 and source.read(3) is None and source[3].shape == (40, 48, 3)
    assert "dot.png of the folder" in caplog.text and "has 40 x 3 pixels, too few to learn from" in caplog.text
    with pytest.raises(UserError, match="none of them readable"):
        data.open_source("folder", tmp_path, "all", options=data.SourceOptions(least=41))


def test_small_pictures_of_prepared_sets_are_left_out(tmp_path, caplog):
    write(tmp_path / "set", [f"{i}.png" for i in range(4)], height=40, width=48)
    Image.new("RGB", (1, 1)).save(tmp_path / "set" / "dot.png")
    Image.new("RGB", (6, 6)).save(tmp_path / "set" / "small.png")
    found = prepare.prepare(tmp_path / "set", tmp_path / "kept", Storage(fit="keep"))
    assert found["records"] == 5 and found["broken"][0][0] == "dot.png" and "too few to learn" in found["broken"][0][1]
    source = data.open_source("prepared", tmp_path / "kept", "all", options=data.SourceOptions(least=8))
    assert len(source) == 4 and all(source[i].shape == (40, 48, 3) for i in range(4))
    assert "1 of the 5 images of the prepared set" in caplog.text
    found = prepare.prepare(tmp_path / "set", tmp_path / "square", Storage(size=64))
    assert found["records"] == 4 and {name for name, _ in found["broken"]} == {"dot.png", "small.png"}
    with pytest.raises(UserError, match="All 4 images of the prepared set .* are too small"):
        data.open_source("prepared", tmp_path / "square", "all", options=data.SourceOptions(least=65))


# Pairs


def write_pairs(root, scale=2, suffix="", count=3, height=20, width=24):
    """Writes pictures of `scale` times the size in hr, and their means over scale x scale pixels in lr."""
    for i in range(count):
        large = picture(i, height * scale, width * scale)
        small = large.reshape(height, scale, width, scale, 3).mean((1, 3)).round().astype(np.uint8)
        for part, name, image in (("hr", f"{i:04d}", large), ("lr", f"{i:04d}{suffix}", small)):
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / part / f"{name}.png")


def pair_config(root, **fields):
    config = get_base_config().data
    config.update(source="folder", root=str(root / "hr"), lr_root=str(root / "lr"), image_size=16, lr_size=8)
    config.update(target_min=16, target_max=16, target_patch=16, val_num=3, transpose=True, **fields)
    return config


def test_crops_of_a_pair_show_the_same_place(tmp_path):
    write_pairs(tmp_path, suffix="x2")
    batches = data.train_batches(pair_config(tmp_path), 0, 32)
    batch = next(batches)
    batches.close()
    for found in (batch, data.val_batch(pair_config(tmp_path))):
        means = found["image"].reshape(-1, 8, 2, 8, 2, 3).mean((2, 4))
        np.testing.assert_allclose(found["lr"], means, atol=0.6 / 127.5)  # the LR picture's own pixels, rounded
        np.testing.assert_array_equal(found["image"], found["target"])
    assert len({one.tobytes() for one in batch["lr"]}) > 20
    config = pair_config(tmp_path, center_crop=True, val_lr_root="")
    lr, wanted = data.val_batch(config)["lr"][0], []  # the central square of an LR picture, resized
    for path in (tmp_path / "lr").iterdir():
        with Image.open(path) as small:
            wanted.append(np.asarray(small.crop((2, 0, 22, 20)).resize((8, 8), BICUBIC)) / np.float32(127.5) - 1)
    assert min(np.abs(lr - one).max() for one in wanted) < 1e-6


def test_validation_pairs_have_a_folder_of_their_own(tmp_path):
    write_pairs(tmp_path / "train")
    write_pairs(tmp_path / "val", scale=4, suffix="x4", count=1)
    config = pair_config(tmp_path / "train", val_source="folder", val_root=str(tmp_path / "val" / "hr"))
    reduced = data.val_batch(config)
    config.val_lr_root = str(tmp_path / "val" / "lr")
    given = data.val_batch(config)
    with Image.open(tmp_path / "val" / "lr" / "0000x4.png") as small:
        wanted = np.asarray(small.crop((8, 6, 16, 14))) / np.float32(127.5) - 1
    np.testing.assert_allclose(given["lr"][0], wanted, atol=1e-6)  # the first crop is in the middle
    assert np.abs(given["lr"] - reduced["lr"]).max() > 0.05


@pytest.mark.parametrize(
    "hr, lr, scale",
    [
        ((1356, 2040), (339, 510), 4.0),
        ((1357, 2041), (339, 510), 4.0),  # rounded down
        ((1355, 2039), (339, 510), 4.0),  # rounded up
        ((100, 150), (40, 60), 2.5),
        ((10, 10), (10, 10), 1.0),
        ((10, 10), (20, 20), None),
        ((400, 400), (100, 90), None),
        ((400, 300), (75, 100), None),  # turned by 90 degrees
    ],
)
def test_the_scale_of_a_pair_is_that_of_both_axes(hr, lr, scale):
    assert lr_pairs.pair_scale(hr, lr) == (pytest.approx(scale) if scale else None)


@pytest.mark.parametrize(
    "hr, lr, wanted",
    [
        (["0801.png", "0802.png"], ["0801x4.png", "0802x4m.png"], ["0801x4.png", "0802x4m.png"]),
        (["a/1.png", "b/1.png"], ["b/1.jpg", "a/1.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["1.png", "sub/2.png"], ["X2/1x2.png", "X2/2_X2.png"], ["X2/1x2.png", "X2/2_X2.png"]),
        (["Canon_001_HR.png"], ["Canon_001_LR4.png"], ["Canon_001_LR4.png"]),
        (["fox4.png", "fox8.png"], ["fox4.png", "fox8.png"], ["fox4.png", "fox8.png"]),
    ],
)
def test_names_of_pairs_agree_up_to_a_suffix(tmp_path, hr, lr, wanted):
    write(tmp_path / "hr", hr, height=16, width=16)
    write(tmp_path / "lr", lr, height=4, width=4)
    _, found = lr_pairs.pair_up({"": tmp_path / "hr"}, hr, tmp_path / "lr")
    assert [found[name] for name in hr] == wanted


def test_pairs_that_do_not_fit_are_named(tmp_path, caplog):
    write_pairs(tmp_path, count=4)
    (tmp_path / "lr" / "0001.png").rename(tmp_path / "lr" / "other.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "lr" / "0002.png")
    options = data.SourceOptions(lr_root=tmp_path / "lr")
    source = data.open_source("folder", tmp_path / "hr", "all", options=options)
    assert names_of(source) == ["0000.png", "0002.png", "0003.png"] and source.read(1) is None
    assert source[0].lr.shape == (20, 24, 3) and source[0].scale == 2 and len(source.stamps()) == 6
    assert "1 of the 4 images have no LR picture and are left out: 0001.png" in caplog.text
    assert "1 of the 4 LR pictures belong to no image: other.png" in caplog.text
    assert "0002.png (40 x 48) and 0002.png (20 x 20) has no common scale" in caplog.text
    write(tmp_path / "lr", ["X4/0000x4.png"])
    with pytest.raises(UserError, match="0000.png has several LR pictures in the folder .*0000.png and X4/0000x4.png"):
        data.open_source("folder", tmp_path / "hr", "all", options=options)
    write(tmp_path / "none", ["z.png"])
    with pytest.raises(UserError, match="None of the 4 images .* has an LR picture in the folder .*none, whose first"):
        data.open_source("folder", tmp_path / "hr", options=data.SourceOptions(lr_root=tmp_path / "none"))
    with pytest.raises(UserError, match="data.lr_root names 2 folders and data.root 1"):
        data.open_source("folder", tmp_path / "hr", options=data.SourceOptions(lr_root=(tmp_path / "lr", tmp_path)))


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(degradation="real"), "data.lr_root gives the LR images, and data.degradation"),
        (dict(lr_scale_min=2.0, lr_scale_max=3.0), "data.lr_root gives the LR images, and data.degradation"),
        (dict(source="embedded"), "data.lr_root goes with pictures of a folder; set data.source=folder"),
        (dict(val_lr_root="x"), "data.val_lr_root goes with pictures of a folder; set data.val_source=folder"),
    ],
)
def test_fields_that_contradict_pairs_are_named(tmp_path, fields, message):
    write_pairs(tmp_path)
    with pytest.raises(UserError, match=message):
        data.train_batches(pair_config(tmp_path, **fields), 0, 2)
