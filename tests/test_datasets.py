"""Data sets as the field lays them out, split files, prepared sets and TFDS sets, written from encoded bytes."""

import json
import multiprocessing
import os
import pickle
import re
import sys
from itertools import pairwise

import grain
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from image_files import BICUBIC, encoded, picture, write
from PIL import Image

from arbiscale_jax import data
from arbiscale_jax.cli import prepare_data as command
from arbiscale_jax.cli import program
from arbiscale_jax.data import RecordOptions, SplitFiles, catalog, prepare, shards, tf_example
from arbiscale_jax.data.shards import Storage
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config


def names_of(source):
    return [source.name(i) for i in range(len(source))]


def splits(kind, root, **options):
    return {split: data.make_source(kind, root, split, **options) for split in ("train", "val", "all")}


# The layouts

LAYOUTS = {  # file names by (set, what is special), and how many are to be found
    ("ffhq", "nested"): [f"ffhq/images1024x1024/{i // 10 * 10:05d}/{i:05d}.png" for i in range(25)],
    ("ffhq", "flat"): [f"images1024x1024/{i:05d}.png" for i in range(25)],
    ("ffhq", "thumbnails"): [f"ffhq/thumbnails128x128/00000/{i:05d}.png" for i in range(25)],
    ("celeba_hq", "256"): [f"celeba_hq_256/{i:05d}.jpg" for i in range(25)],
    ("celeba_hq", "CelebAMask-HQ"): [f"CelebAMask-HQ/CelebA-HQ-img/{i}.jpg" for i in range(25)],
    ("lsun_bedroom", "exported"): [f"lsun/bedroom_train/{i % 3}/f/a/b/0/1/{i:040x}.webp" for i in range(25)],
    ("lsun_church", "flat"): [f"lsun/churches/{i:040x}.webp" for i in range(25)],
    ("lsun_tower", "below its own root"): [f"tower_train/{i % 2}/{i:040x}.webp" for i in range(25)],
    ("div2k", "without validation"): [f"DIV2K/DIV2K_train_HR/{i:04d}.png" for i in range(25)],
}


@pytest.mark.parametrize("name, what", LAYOUTS)
def test_each_layout_is_found_and_split(name, what, tmp_path, monkeypatch):
    write(tmp_path, LAYOUTS[name, what])
    monkeypatch.setenv("ARBISCALE_DATA", str(tmp_path))
    found = splits(name, "", image_size=128 if what == "thumbnails" else 192)
    assert len(found["all"]) == 25 and len(found["val"]) == 1 and len(found["train"]) == 24
    assert sorted(names_of(found["train"]) + names_of(found["val"])) == names_of(found["all"])
    ordered = sorted(range(25), key=lambda i: LAYOUTS[name, what][i])  # the names below the folder sort alike
    if not what.startswith(("celeba", "CelebA", "256")):  # jpeg is not exact
        np.testing.assert_array_equal(found["all"][3], picture(ordered[3]))
    assert found["all"][3].shape == (20, 24, 3)


def test_the_validation_folder_of_div2k_is_not_trained_on(tmp_path):
    write(tmp_path, [f"DIV2K/DIV2K_train_HR/{i:04d}.png" for i in range(4)])
    write(tmp_path, [f"DIV2K/DIV2K_valid_HR/{i:04d}.png" for i in range(801, 803)])
    found = splits("div2k", tmp_path)
    assert names_of(found["val"]) == ["0801.png", "0802.png"]
    assert names_of(found["train"]) == names_of(found["all"]) == [f"{i:04d}.png" for i in range(4)]
    (tmp_path / "train.txt").write_text("0001\n0002\n")  # each list is of its own folder
    (tmp_path / "val.txt").write_text("0802\n")
    found = splits("div2k", tmp_path, split_files=SplitFiles(tmp_path / "train.txt", tmp_path / "val.txt"))
    assert names_of(found["train"]) == ["0001.png", "0002.png"] and names_of(found["val"]) == ["0802.png"]
    found = splits("div2k", tmp_path, split_files=SplitFiles(tmp_path / "train.txt"))
    assert names_of(found["train"]) == ["0001.png", "0002.png"] and names_of(found["val"]) == ["0801.png", "0802.png"]


def test_df2k_joins_both_sets_and_needs_both(tmp_path):
    write(tmp_path, ["DIV2K/DIV2K_train_HR/0001.png", "DIV2K/DIV2K_train_HR/0002.png", "DIV2K/DIV2K_valid_HR/0801.png"])
    with pytest.raises(UserError, match=r"looked for .*df2k_192, .*Flickr2K/Flickr2K_HR, .*Flickr2K_HR, .*Flickr2K\."):
        data.make_source("df2k", tmp_path, image_size=192)
    write(tmp_path / "Flickr2K", ["Flickr2K_HR/000001.png", "Flickr2K_LR_bicubic/X2/000001x2.png"])
    found = splits("df2k", tmp_path, image_size=192)
    joined = ["DIV2K_train_HR/0001.png", "DIV2K_train_HR/0002.png", "Flickr2K_HR/000001.png"]
    assert names_of(found["train"]) == joined and names_of(found["val"]) == ["0801.png"]
    np.testing.assert_array_equal(found["train"][2], picture(0))


def test_the_smallest_pictures_that_suffice_are_taken(tmp_path):
    write(tmp_path / "ffhq", [f"thumbnails128x128/{i:05d}.png" for i in range(3)])
    write(tmp_path / "ffhq", [f"images1024x1024/{i:05d}.png" for i in range(3)])
    assert catalog.locate("ffhq", tmp_path, "train", 128).root.endswith("thumbnails128x128")
    assert catalog.locate("ffhq", tmp_path, "train", 256).root.endswith("images1024x1024")
    for side in (192, 256, 512):
        prepare.prepare(tmp_path / "ffhq" / "thumbnails128x128", tmp_path / f"ffhq_{side}", Storage(size=16))
    expected = catalog.Place("prepared", str(tmp_path / "ffhq_256"), "train")
    assert catalog.locate("ffhq", tmp_path, "train", 256) == expected
    assert catalog.locate("ffhq", tmp_path / "ffhq_512", "val", 256).root == str(tmp_path / "ffhq_512")


def test_lists_beside_a_known_set_split_it(tmp_path):
    write(tmp_path / "lsun", [f"bedrooms/{i:04x}.webp" for i in range(6)])
    (tmp_path / "lsun/bedrooms_train.txt").write_text("".join(f"{i:04x}.webp\n" for i in range(4)))
    (tmp_path / "lsun/bedrooms_val.txt").write_text("0005.webp\n")
    found = splits("lsun_bedroom", tmp_path)
    assert names_of(found["train"]) == ["0000.webp", "0001.webp", "0002.webp", "0003.webp"]
    assert names_of(found["val"]) == ["0005.webp"]
    (tmp_path / "mine.txt").write_text("0004\n")
    mine = SplitFiles(tmp_path / "mine.txt")
    assert names_of(data.make_source("lsun_bedroom", tmp_path, split_files=mine)) == ["0004.webp"]
    prepare.prepare(tmp_path / "lsun/bedrooms", tmp_path / "lsun_bedroom_256", Storage(size=16))
    with pytest.raises(UserError, match="do not split the prepared set .*lsun_bedroom_256"):
        data.make_source("lsun_bedroom", tmp_path, split_files=mine, image_size=256)


def test_a_validation_folder_goes_with_a_prepared_training_set(tmp_path):
    write(tmp_path / "DIV2K", [f"DIV2K_train_HR/{i:04d}.png" for i in range(3)])
    write(tmp_path / "DIV2K", [f"DIV2K_valid_HR/{i:04d}.png" for i in range(2)])
    prepare.prepare(tmp_path / "DIV2K/DIV2K_train_HR", tmp_path / "div2k_480", Storage(size=16, fit="tiles"))
    found = splits("div2k", tmp_path, image_size=192)
    assert len(found["train"]) == 3 * 2 * 2 and names_of(found["val"]) == ["0000.png", "0001.png"]
    write(tmp_path / "v", ["a.png"])
    prepare.prepare(tmp_path / "v", tmp_path / "div2k_480", Storage(fit="keep"), split="validation")
    np.testing.assert_array_equal(data.make_source("div2k", tmp_path, "val")[0], picture(0))


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_and_prepare_it(name, tmp_path, monkeypatch):
    monkeypatch.delenv("ARBISCALE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        data.make_source(name, image_size=192)
    message = str(error.value)
    assert f"{name} (" in message and " was not found below data: looked for data/" in message
    for path in (path for part in catalog.DATASETS[name].train for path, side in part.items() if side >= 192):
        assert f"data/{path}" in message
    called = re.search(r"'python -m arbiscale_jax.data.prepare (.*?)'", message)[1].split()
    options = dict(zip(called[::2], called[1::2], strict=True))
    assert options["--output"].startswith(f"data/{name}_") and {"--input", "--size"} < set(options)
    assert "config.data.root or $ARBISCALE_DATA" in message and "--config.data.source=folder" in message
    write(tmp_path / "data", [f"{path.removeprefix('data/')}/0.png" for path in options["--input"].split(",")])
    assert len(data.make_source(name, "", "all", image_size=192)) == len(options["--input"].split(","))  # it is right


def test_an_lmdb_is_told_from_a_folder_of_images(tmp_path):
    (tmp_path / "lsun/bedroom_train/bedroom_train_lmdb").mkdir(parents=True)
    (tmp_path / "lsun/bedroom_train/bedroom_train_lmdb/data.mdb").write_bytes(b"\0")
    with pytest.raises(UserError, match="bedroom_train holds an LMDB .* export it"):
        data.make_source("lsun_bedroom", tmp_path)


# Folders and split files


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set", ["a/1.png", "a/2.jpg", "b/1.png", "b/3.webp", "c.png"])
    return tmp_path / "set"


@pytest.mark.parametrize(
    "text, chosen",
    [
        ("a/1.png\nb/3.webp\n", ["a/1.png", "b/3.webp"]),
        ("a/1\n./c\n", ["a/1.png", "c.png"]),
        ("# the second\n\n 2.jpg \r\n3\n3.webp\n", ["a/2.jpg", "b/3.webp"]),
        ("elsewhere/a/2.jpg\nnot_there\n", ["a/2.jpg"]),
        ("a/3.webp\na/1.png\nnot_there/c/\n", ["a/1.png"]),  # b/3.webp is another
        ("\ufeff# marked\r\n\ufeffa\\1.png\r\n\r\nb\\3\r\n", ["a/1.png", "b/3.webp"]),
        ("\"a/1.png\"\n'b/3.webp' \n\tc.png  # the last\n", ["a/1.png", "b/3.webp", "c.png"]),
        ("D:\\photos\\set\\a\\2.jpg\r.\\c\r./a/../b//1\r", ["a/2.jpg", "b/1.png", "c.png"]),
    ],
)
def test_a_split_file_names_images_in_several_ways(folder, tmp_path, text, chosen, caplog):
    (tmp_path / "split.txt").write_text(text)
    assert names_of(data.make_source("folder", folder, "all", split_files=SplitFiles(tmp_path / "split.txt"))) == chosen
    assert ("images in" in caplog.text and "are not there" in caplog.text) == ("not_there" in text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_split_file_in_any_unicode_names_the_same_images(tmp_path, encoding):
    write(tmp_path / "set", ["e\u0301te\u0301.png", "b.png"])  # decomposed, as macOS writes names
    (tmp_path / "split.txt").write_bytes("\u00e9t\u00e9.png\r\n".encode(encoding))
    files = SplitFiles(tmp_path / "split.txt")
    assert names_of(data.make_source("folder", tmp_path / "set", "all", split_files=files)) == ["e\u0301te\u0301.png"]


def test_absolute_paths_are_those_of_the_folder_or_are_refused(folder, tmp_path):
    split, files = tmp_path / "split.txt", SplitFiles(tmp_path / "split.txt")
    split.write_text(f"{folder}/a/1.png\n/of/another/machine/b/1.png\n")
    assert names_of(data.make_source("folder", folder, "all", split_files=files)) == ["a/1.png", "b/1.png"]
    write(tmp_path / "other", ["c.png"])
    split.write_text(f"c.png\n{tmp_path}/other/c.png\n")
    with pytest.raises(UserError, match="/other/c.png in the split file .* leads out of the folder"):
        data.make_source("folder", folder, "all", split_files=files)


def test_a_listed_path_is_that_image_though_others_share_its_name(tmp_path):
    write(tmp_path / "set", ["1.png", "sub/1.png"])
    (tmp_path / "split.txt").write_text("1.png\n")
    files = SplitFiles(tmp_path / "split.txt")
    assert names_of(data.make_source("folder", tmp_path / "set", "all", split_files=files)) == ["1.png"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1.png\n", r"1.png in the split file .* may be a/1.png or b/1.png; write the whole path"),
        ("x\ny\n", "None of the 2 names in the split file .*, such as x, is an image .* first is a/1.png"),
        ("# nothing\n", "None of the 0 names"),
        (None, "split.txt cannot be read .No such file"),
        (b"\xff\xfe\0", "split.txt cannot be read .it is no text"),
        (b"\x89PNG\0\0\0\rIHDR\0\xd8\0", "split.txt cannot be read .it is no text|None of the"),
        ("../set/a/1.png\n", r"\.\./set/a/1.png in the split file .* leads out of the folder .*set; list images"),
        ("a\\..\\..\\other.png\n", "leads out of the folder"),
    ],
)
def test_a_split_file_that_does_not_fit_is_explained(folder, tmp_path, text, message):
    if text is not None:
        (tmp_path / "split.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        data.make_source("folder", folder, split_files=SplitFiles(tmp_path / "split.txt"))


def test_a_validation_list_is_taken_out_of_the_training_images(folder, tmp_path):
    (tmp_path / "val.txt").write_text("a/2\nc\n")
    found = splits("folder", folder, split_files=SplitFiles(val=tmp_path / "val.txt"))
    assert names_of(found["train"]) == ["a/1.png", "b/1.png", "b/3.webp"] and names_of(found["val"]) == [
        "a/2.jpg",
        "c.png",
    ]
    (tmp_path / "val.txt").write_text("a/1\na/2\nb/1\nb/3\nc\n")
    with pytest.raises(UserError, match="val.txt leaves no image"):
        data.make_source("folder", folder, "train", split_files=SplitFiles(val=tmp_path / "val.txt"))


@pytest.mark.parametrize("as_text", [True, False])
def test_several_roots_are_joined(folder, tmp_path, as_text, monkeypatch):
    write(tmp_path / "more", ["z.png"], height=8)
    write(tmp_path / "other" / "set", ["y.png"], height=12)
    roots = (folder, tmp_path / "more", tmp_path / "other" / "set")
    source = data.make_source("folder", ",".join(map(str, roots)) if as_text else roots, "all")
    assert len(source) == 7 and source[names_of(source).index("more/z.png")].shape[0] == 8
    assert source[names_of(source).index("set_3/y.png")].shape[0] == 12  # two folders are called set
    assert pickle.loads(pickle.dumps(source)).name(0) == "more/z.png"
    monkeypatch.chdir(folder)  # a root without a name of its own
    source = data.make_source("folder", f".,{tmp_path / 'more'}", "all")
    assert names_of(source)[:2] == ["more/z.png", "set/a/1.png"] and source[0].shape[0] == 8
    (tmp_path / "one, with a comma").mkdir()
    write(tmp_path / "one, with a comma", ["1.png"])
    assert len(data.make_source("folder", str(tmp_path / "one, with a comma"))) == 1
    with pytest.raises(UserError, match="nowhere does not exist"):
        data.make_source("folder", f"{folder},{tmp_path / 'nowhere'}")


def test_broken_files_of_a_joined_folder_are_skipped(folder, tmp_path, caplog):
    write(tmp_path / "more", ["z.png"])
    (tmp_path / "more" / "cut.png").write_bytes(encoded(0)[:60])
    source = data.make_source("folder", (folder, tmp_path / "more"), "all")
    images = [source[i] for i in range(len(source))]
    np.testing.assert_array_equal(images[0], images[1])  # more/cut.png, more/z.png
    assert "cut.png" in caplog.text


def test_the_fields_of_the_configuration_reach_the_source(folder, tmp_path):
    (tmp_path / "train.txt").write_text("a/1\nb/1\n")
    (tmp_path / "val.txt").write_text("c\n")
    config = get_base_config().data
    config.update(source="folder", root=str(folder), image_size=16, target_min=16, target_max=16, target_patch=16)
    config.update(split_file=str(tmp_path / "train.txt"), val_split_file=str(tmp_path / "val.txt"), center_crop=True)
    config.update(val_num=1, flip=False)
    middle = [Image.fromarray(picture(i)).crop((2, 0, 22, 20)).resize((16, 16), BICUBIC) for i in range(5)]
    middle = [np.asarray(one) / np.float32(127.5) - 1 for one in middle]
    np.testing.assert_allclose(data.val_batch(config)["image"][0], middle[4], atol=1e-6)
    batches = data.train_batches(config, 0, 8)
    seen = next(batches)["image"]
    batches.close()
    for image in seen:  # the largest square in the middle, of the two listed images
        assert min(abs(image - middle[i]).max() for i in (0, 2)) < 1e-6
    config.update(val_source="folder", val_root=str(folder / "b"), val_split_file=str(tmp_path / "b.txt"))
    (tmp_path / "b.txt").write_text("3\n")
    np.testing.assert_allclose(data.val_batch(config)["image"][0], middle[3], atol=1e-6)
    config.update(source="embedded", val_source="")
    with pytest.raises(UserError, match="split folders, not data.source=embedded"):
        data.val_batch(config)


# Prepared sets


def test_records_are_protocol_buffers_of_tensorflow():
    record = tf_example.encode({"image": b"\x00" * 300, "name": b"a"})
    assert tf_example.decode(record) == {"image": b"\x00" * 300, "name": b"a"}
    by_hand = b'\n"\n\x10\n\x05label\x12\x07\x1a\x05\n\x03\x01\x02\x03\n\x0e\n\x04name\x12\x06\n\x04\n\x02hi'
    assert tf_example.decode(by_hand) == {"name": b"hi"}  # beside a list of integers
    for broken in (record[:-1], b"\xff" * 12, b"\x0b", b"\x0a"):
        with pytest.raises(ValueError, match="no tf.train.Example"):
            tf_example.decode(broken)


def test_records_agree_with_the_generated_protocol_buffers():
    pb2 = pytest.importorskip("tensorflow_datasets.proto", reason="the extra tfds is not installed").tf_example_pb2
    example = pb2.Example()
    example.features.feature["image"].bytes_list.value.extend([b"first", b"second"])
    example.features.feature["label"].int64_list.value.extend([1, 2**40])
    example.features.feature["size"].float_list.value.append(0.5)
    example.features.feature["empty"].bytes_list.SetInParent()
    assert tf_example.decode(example.SerializeToString()) == {"image": b"first"}
    back = pb2.Example.FromString(tf_example.encode({"image": b"x" * 70_000, "name": "ä".encode()}))
    assert {k: list(v.bytes_list.value) for k, v in back.features.feature.items()} == {
        "image": [b"x" * 70_000],
        "name": ["ä".encode()],
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns (input folder, prepared set of its 45 images with two broken ones left out, what prepare returned)."""
    root = tmp_path_factory.mktemp("prepared")
    write(root / "in", [f"{i % 4}/{i:03d}.png" for i in range(45)])
    (root / "in" / "0" / "text.png").write_text("no picture")
    (root / "in" / "zz.jpg").write_bytes(encoded(0, ".jpg")[:200])
    out = prepare.prepare(root / "in", root / "set_16", Storage(size=16))
    prepare.prepare(root / "in" / "1", root / "set_16", Storage(size=16), split="validation")
    return root / "in", root / "set_16", out


def test_a_prepared_set_holds_the_protocols_pictures(prepared):
    folder, output, out = prepared
    assert out["images"] == 47 and out["records"] == 45 and out["shards"] == 16
    assert [name for name, _ in out["broken"]] == ["0/text.png", "zz.jpg"]
    lines = (output / "broken_train.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0/text.png", "zz.jpg"] and "Truncated" in lines[1]
    source = data.make_source("prepared", output)
    assert len(source) == 45 and source.name(7) == "7"
    names = [name for name in sorted(f"{i % 4}/{i:03d}.png" for i in range(45))]
    for i in (0, 7, 44):
        made = data.example(picture(int(names[i][2:5])), np.random.default_rng(0), CROP)
        np.testing.assert_array_equal(source[i], np.rint((made["image"] + 1) * 127.5))
    assert len(data.make_source("prepared", output, "val")) == 11
    assert not (output / ".prepare").exists()


CROP = data.ExampleSpec(16, 0, target_min=16, target_max=16, target_patch=16, center_crop=True)


def test_grain_alone_and_tfds_read_a_prepared_set(prepared):
    folder, output, _ = prepared
    paths = sorted(str(path) for path in output.glob("set_16-train.array_record-*"))
    raw = grain.sources.ArrayRecordDataSource(paths)
    assert tf_example.decode(raw[1])["name"] == b"0/004.png"
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    builder = tfds.builder_from_directory(output)
    assert builder.info.splits["train"].num_examples == 45 and builder.info.splits["validation"].num_examples == 11
    examples = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert examples[1]["name"] == b"0/004.png" and examples[1]["image"][:4] == b"\x89PNG"
    for split, count in (("train", 45), ("val", 11), ("all", 45)):
        through_tfds, direct = (data.make_source(kind, output, split) for kind in ("tfds", "prepared"))
        assert len(through_tfds) == len(direct) == count
        np.testing.assert_array_equal(through_tfds[3], direct[3])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(through_tfds))[3], direct[3])
    assert "tensorflow" not in sys.modules


def test_an_interrupted_preparation_goes_on(prepared, tmp_path, monkeypatch):
    folder, whole, out = prepared

    class Stop(Exception):
        pass

    def interrupt(done, total):
        assert total == 47
        if done > 20:
            raise Stop

    with pytest.raises(Stop):
        prepare.prepare(folder, tmp_path / "set_16", Storage(size=16), progress=interrupt)
    assert not data.is_prepared(tmp_path / "set_16")
    with pytest.raises(UserError, match="unfinished split train with another size"):
        prepare.prepare(folder, tmp_path / "set_16", Storage(size=12))
    written, real = [], shards.read_image
    monkeypatch.setattr(shards, "read_image", lambda path: written.append(path) or real(path))
    work = tmp_path / "set_16/.prepare/train"
    (work / "00001").write_bytes(b"cut short")  # after its marker: a lost disk cache
    assert prepare.prepare(folder, tmp_path / "set_16", Storage(size=16)) == out
    assert 47 - 21 <= len(written) <= 47 - 21 + 3  # only what was missing
    for path in sorted(whole.glob("set_16-train*")):
        assert (tmp_path / "set_16" / path.name).read_bytes() == path.read_bytes()
    written.clear()
    assert prepare.prepare(folder, tmp_path / "set_16", Storage(size=16)) == out and not written
    with pytest.raises(UserError, match="already holds a split train of other images or settings"):
        prepare.prepare(folder, tmp_path / "set_16", Storage(size=12))
    with pytest.raises(UserError, match="has splits in png; give the same --format"):
        prepare.prepare(folder, tmp_path / "set_16", Storage(size=16, image_format="jpeg"), split="test")


def test_a_crash_between_renaming_and_metadata_is_mended(prepared, tmp_path, monkeypatch):
    folder, _, out = prepared
    real = prepare.write_text
    monkeypatch.setattr(
        prepare, "write_text", lambda path, text: 1 / 0 if path.name == "features.json" else real(path, text)
    )
    with pytest.raises(ZeroDivisionError):
        prepare.prepare(folder, tmp_path / "set_16", Storage(size=16))
    monkeypatch.undo()
    assert prepare.prepare(folder, tmp_path / "set_16", Storage(size=16)) == out
    assert len(data.make_source("prepared", tmp_path / "set_16", "all")) == 43 + 2


def test_several_processes_write_the_same_bytes_on_the_command_line(prepared, tmp_path, capsys):
    folder, whole, _ = prepared
    argv = ["--input", str(folder), "--output", str(tmp_path / "set_16"), "--size=16", "--processes=2"]
    assert program.run(command.main, argv) == 0
    printed = capsys.readouterr()
    assert "45 records of 47 images in 16 shards" in printed.out and "left out: zz.jpg: " in printed.out
    assert "100%" in printed.err
    for path in sorted(whole.glob("set_16-train*")):
        assert (tmp_path / "set_16" / path.name).read_bytes() == path.read_bytes()
    assert not multiprocessing.active_children()


def test_names_that_are_not_utf_8_are_kept(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in ((b"a\xff.png", encoded(0)), (b"b\xff.png", b"no picture")):
        (folder / os.fsdecode(name)).write_bytes(content)
    out = prepare.prepare(folder, tmp_path / "out", Storage(size=8))
    assert out["records"] == 1 and out["broken"][0][0] == os.fsdecode(b"b\xff.png")
    assert (tmp_path / "out/broken_train.txt").read_text().startswith("b\\xff.png\t")
    (shard,) = (str(path) for path in (tmp_path / "out").glob("out-train*"))
    assert tf_example.decode(grain.sources.ArrayRecordDataSource([shard])[0])["name"] == b"a\xff.png"
    assert prepare.prepare(folder, tmp_path / "out", Storage(size=8)) == out


@pytest.mark.parametrize("fit, size", [("crop", 12), ("aspect", 12), ("tiles", 12), ("keep", 0)])
def test_what_each_fit_keeps(tmp_path, fit, size):
    write(tmp_path / "in", ["a.png"], height=20, width=31)
    whole = Image.fromarray(picture(0, 20, 31))
    prepare.prepare(tmp_path / "in", tmp_path / "out", Storage(size=size, fit=fit, image_format="png"))
    source = data.make_source("prepared", tmp_path / "out", "all")
    images = [source[i] for i in range(len(source))]
    if fit == "tiles":
        starts = [(top, left) for top in (0, 4, 8) for left in (0, 5, 10, 14, 19)]
        assert shards.tile_starts(20, 12) == [0, 4, 8] and shards.tile_starts(31, 12) == [0, 5, 10, 14, 19]
        for image, (top, left) in zip(images, starts, strict=True):
            np.testing.assert_array_equal(image, picture(0, 20, 31)[top : top + 12, left : left + 12])
        held = data.make_source("prepared", tmp_path / "out", "val")
        assert names_of(held) == ["14"]  # the last, since its neighbours would show what is held out
        return
    expected = {
        "crop": whole.crop((5, 0, 25, 20)).resize((12, 12), BICUBIC),
        "aspect": whole.resize((19, 12), BICUBIC),
        "keep": whole,
    }[fit]
    assert len(images) == 1
    np.testing.assert_array_equal(images[0], expected)


@pytest.mark.parametrize("length, size", [(5, 8), (8, 8), (9, 8), (100, 7), (2040, 480)])
def test_tiles_cover_everything_and_overlap_by_half(length, size):
    starts = shards.tile_starts(length, size)
    assert starts[0] == 0 and starts[-1] == max(0, length - size)
    assert all(0 < b - a <= size / 2 + 0.5 for a, b in pairwise(starts))


def test_jpeg_is_smaller_and_near(tmp_path):
    write(tmp_path / "in", ["a.png"], height=64, width=64)
    prepare.prepare(tmp_path / "in", tmp_path / "out", Storage(size=64, image_format="jpeg", quality=95))
    image = data.make_source("prepared", tmp_path / "out", "all")[0]
    assert abs(image.astype(int) - picture(0, 64, 64)).mean() < 3
    assert (
        json.loads((tmp_path / "out/features.json").read_text())["featuresDict"]["features"]["image"]["image"][
            "encodingFormat"
        ]
        == "jpeg"
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(storage=Storage(16, fit="stretch")), "--fit is one of crop, aspect, tiles, keep, got 'stretch'"),
        (dict(storage=Storage(0)), "--size=0 does not go with --fit=crop"),
        (dict(storage=Storage(16, "keep")), "--size=16 does not go with --fit=keep"),
        (dict(storage=Storage(16, image_format="gif")), "--format is one of png, jpeg, got 'gif'"),
        (dict(storage=Storage(16, quality=0)), "--quality lies in"),
        (dict(split="Train-1"), "--split is a name of lower-case letters"),
        (dict(processes=0), "--processes must be at least 1"),
        (dict(root="nowhere"), "nowhere does not exist"),
        (dict(output="in"), "--output=in holds something other than a prepared set"),
        (dict(output="in/a.png/x"), "--output=in/a.png/x cannot be written"),
        (dict(root="broken"), "None of the 1 images can be read, the first: broken/a.png is not an image"),
    ],
)
def test_preparation_mistakes_are_named(tmp_path, monkeypatch, options, message):
    write(tmp_path / "in", ["a.png"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare.prepare(**(dict(root="in", output="out", storage=Storage(16)) | options))


def test_a_damaged_prepared_set_is_explained(prepared, tmp_path):
    folder, output, _ = prepared
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in output.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="copy is a prepared set; read it with --config.data.source=prepared"):
        data.make_source("folder", copy)
    shard = sorted(copy.glob("set_16-train*"))[0]
    os.truncate(shard, 100)
    with pytest.raises(UserError, match="shards of the prepared set .* cannot be read"):
        data.make_source("prepared", copy)
    shard.unlink()
    with pytest.raises(UserError, match=f"lacks 1 shards, such as {shard.name}"):
        data.make_source("prepared", copy)
    with pytest.raises(UserError, match="has no image feature 'name' .*; it has image"):
        data.make_source("prepared", copy, records=RecordOptions(image_feature="name"))
    (copy / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="dataset_info.json cannot be read .it is not JSON"):
        data.make_source("prepared", copy)
    with pytest.raises(UserError, match="nowhere does not exist; make it with 'python -m arbiscale_jax.data.prepare"):
        data.make_source("prepared", tmp_path / "nowhere")


# TFDS


def write_tfds(directory, features, examples, splits=("train",), file_format="array_record"):
    """Writes a set as TFDS does: features by name with their JSON, one shard a split."""
    directory.mkdir(parents=True)
    package = "tensorflow_datasets.core.features"
    described = {
        name: {
            "pythonClassName": f"{package}.image_feature.Image",
            "image": {"shape": {"dimensions": ["-1", "-1", "3"]}},
        }
        | {"image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}
        if kind == "image"
        else {"pythonClassName": f"{package}.text_feature.Text", "text": {}}
        for name, kind in features.items()
    }
    tree = {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": described}}
    (directory / "features.json").write_text(json.dumps(tree))
    entries = []
    for split in splits:
        name = f"lsun-{split}.{file_format}-00000-of-00001"
        writer = ArrayRecordWriter(str(directory / name), "group_size:1")
        for one in examples:
            writer.write(tf_example.encode(one))
        writer.close()
        entries.append({"name": split, "shardLengths": [str(len(examples))], "numBytes": "1"})
    info = {"name": "lsun", "version": directory.name, "fileFormat": file_format, "splits": entries}
    (directory / "dataset_info.json").write_text(json.dumps(info))


def test_a_tfds_set_is_found_by_name(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    examples = [{"image": encoded(i), "note": b"x"} for i in range(25)]
    for version in ("3.0.0", "3.1.0"):
        write_tfds(tmp_path / "lsun/bedroom" / version, {"image": "image", "note": "text"}, examples)
    write_tfds(tmp_path / "lsun/cat/3.1.0", {"image": "image"}, [{"image": encoded(30)}], splits=("train", "test"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    source = data.make_source("tfds", "lsun/bedroom", "all")
    assert len(source) == 25 and "lsun/bedroom" in repr(source)
    np.testing.assert_array_equal(source[24], picture(24))
    train, val = data.make_source("tfds", "lsun/bedroom:3.0.0"), data.make_source("tfds", "lsun/bedroom", "val")
    assert names_of(val) == ["19"] and len(train) == 24 and "19" not in names_of(train)
    cats = data.make_source("tfds", "lsun/cat", "val", records=RecordOptions(str(tmp_path)))
    np.testing.assert_array_equal(cats[0], picture(30))
    with pytest.raises(UserError, match="several configs; name one: lsun/bedroom, lsun/cat"):
        data.make_source("tfds", "lsun")
    config = get_base_config().data
    config.update(source="tfds", root="lsun/bedroom", tfds_dir=str(tmp_path), image_size=16, val_num=1)
    config.update(target_min=16, target_max=16, target_patch=16)
    assert data.val_batch(config)["image"].shape == (1, 16, 16, 3)


def test_the_image_feature_is_picked_or_named(tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    pair = [{"hr": encoded(0), "lr": encoded(1)}]
    write_tfds(
        tmp_path / "div2k/bicubic_x4/2.0.0", {"lr": "image", "hr": "image"}, pair, splits=("train", "validation")
    )
    for split in ("train", "val", "all"):
        source = data.make_source("tfds", "div2k", split, records=RecordOptions(str(tmp_path)))
        np.testing.assert_array_equal(source[0], picture(0))
    source = data.make_source("tfds", "div2k", records=RecordOptions(str(tmp_path), "lr"))
    np.testing.assert_array_equal(source[0], picture(1))
    write_tfds(tmp_path / "two/1.0.0", {"a": "image", "b": "image"}, [{"a": encoded(0), "b": encoded(1)}])
    with pytest.raises(UserError, match=r"several image features; name one .*: a, b"):
        data.make_source("tfds", "two", records=RecordOptions(str(tmp_path)))
    write_tfds(tmp_path / "none/1.0.0", {"t": "text"}, [{"t": b"x"}])
    with pytest.raises(UserError, match="has no image feature; give a set of images"):
        data.make_source("tfds", "none", records=RecordOptions(str(tmp_path)))


def test_the_command_that_prepares_a_tfds_set_is_told(tmp_path):
    with pytest.raises(UserError) as error:
        data.make_source("tfds", "lsun/bedroom", records=RecordOptions(str(tmp_path)))
    wanted = f"tfds build lsun/bedroom --file_format=array_record --data_dir={tmp_path}'"
    assert wanted in str(error.value)
    write_tfds(tmp_path / "lsun/bedroom/3.1.0", {"image": "image"}, [{"image": encoded(0)}], file_format="tfrecord")
    where = tmp_path / "lsun/bedroom/3.1.0"
    for kind, root in (("prepared", where), ("tfds", "lsun/bedroom")):
        if kind == "tfds":
            pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
        with pytest.raises(UserError, match=f"dataset_version_dir={where} --out_file_format=array_record"):
            data.make_source(kind, root, records=RecordOptions(str(tmp_path)))


def test_without_the_extra_tfds_the_message_names_it(tmp_path, monkeypatch):
    write_tfds(tmp_path / "x/1.0.0", {"image": "image"}, [{"image": encoded(0)}])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"needs the extra tfds; pip install 'arbiscale_jax\[tfds\]'"):
        data.make_source("tfds", "x", records=RecordOptions(str(tmp_path)))


def test_broken_records_are_skipped(tmp_path, caplog):
    write_tfds(tmp_path / "x/1.0.0", {"image": "image"}, [{"image": b"junk"}, {"note": b"x"}, {"image": encoded(2)}])
    source = data.make_source("prepared", tmp_path / "x/1.0.0", "all")
    np.testing.assert_array_equal(source[0], picture(2))
    assert "Record 0 of the prepared set" in caplog.text and "Record 1 of" in caplog.text
