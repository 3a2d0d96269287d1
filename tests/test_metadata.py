"""Metadata of data sets in any shape: one sentence that names the file and the key, and no file outside the set."""

import json
import os
import random
import shutil

import numpy as np
import pytest
from image_files import write

from arbiscale_jax import data
from arbiscale_jax.data import latent_store, metadata, prepare, shards
from arbiscale_jax.data.shards import Storage
from arbiscale_jax.errors import UserError

INFO, FEATURES, SUMMARY = "dataset_info.json", "features.json", "prepare.json"
NESTED = "[" * 100_000 + "]" * 100_000
ANYTHING = [None, True, -1, 0, 1.5, 10**30, 1e300, [], {}, [[]], [None], {"a": 1}]
ANYTHING += ["", "x", "../x", "/x", "\ud800", "\0"]


def one_sentence(error) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 1000 and message.isprintable(), message
    return message


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a prepared set of 17 pictures in 16 shards, with two splits."""
    root = tmp_path_factory.mktemp("made")
    write(root / "in", [f"{i:02d}.png" for i in range(17)])
    prepare.prepare(root / "in", root / "set_8", Storage(size=8))
    (root / "list.txt").write_text("00\n01\n")
    prepare.prepare(root / "in", root / "set_8", Storage(size=8), split="validation", split_file=root / "list.txt")
    return root / "set_8"


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "set")
    return tmp_path / "set"


def edit(path, *change):
    """Replaces the member that the keys lead to by the last argument; `del` deletes it."""
    *keys, value = change
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is del_:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(content))


del_ = object()


@pytest.fixture(params=["prepared", "tfds"])
def kind(request):
    if request.param == "tfds":
        pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    return request.param


# What is no JSON object at all

TEXTS = {
    "empty": (b"", "it is not JSON: Expecting value in line 1"),
    "cut": (b'{"name": "x",\n "splits": [', "it is not JSON: Expecting value in line 2"),
    "list": (b"[1, 2]", "must hold an object, got a list of 2"),
    "number": (b"7", "must hold an object, got 7"),
    "text": (b'"' + b"x" * 5000 + b'"', 'must hold an object, got "' + "x" * 59 + r"\.\.\.;"),
    "null": (b"null", "must hold an object, got null"),
    "nested": (NESTED.encode(), "it is nested too deeply"),
    "nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested too deeply"),
    "binary": (b"\xff\xfe\x00\x01", "it is not UTF-8"),
    "utf-16": ('{"name": "x"}'.encode("utf-16"), "it is not UTF-8"),
    "not a number": (b'{"name": NaN}', "it is not JSON: NaN is no number there"),
    "infinite": (b'{"name": -Infinity}', "it is not JSON: -Infinity is no number there"),
}


@pytest.mark.parametrize("file", [INFO, FEATURES, SUMMARY])
@pytest.mark.parametrize("what", TEXTS)
def test_a_file_that_is_no_object_is_named(copy, file, what):
    content, why = TEXTS[what]
    (copy / file).write_bytes(content)
    with pytest.raises(UserError, match=why) as error:
        data.make_source("prepared", copy)
    assert str(copy / file) in one_sentence(error) and "copy or prepare the set again" in str(error.value)


def test_what_is_no_file_or_too_large_is_named(copy, monkeypatch):
    (copy / FEATURES).unlink()
    with pytest.raises(UserError, match="features.json cannot be read .No such file"):
        data.make_source("prepared", copy)
    (copy / FEATURES).mkdir()
    with pytest.raises(UserError, match="features.json cannot be read .it is no file"):
        data.make_source("prepared", copy)
    (copy / FEATURES).rmdir()
    os.mkfifo(copy / FEATURES)  # to be waited for without end
    with pytest.raises(UserError, match="features.json cannot be read .it is no file"):
        data.make_source("prepared", copy)
    monkeypatch.setattr(metadata, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="dataset_info.json cannot be read .it has more than 100 bytes"):
        data.make_source("prepared", copy)


def test_a_byte_order_mark_and_the_other_spelling_are_read(copy):
    content = json.loads((copy / INFO).read_text())
    for split in content["splits"]:
        split["shard_lengths"] = [int(length) for length in split.pop("shardLengths")]
        split["filepath_template"] = split.pop("filepathTemplate")
    (copy / INFO).write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    np.testing.assert_array_equal(data.make_source("prepared", copy)[3], data.make_source("prepared", copy, "all")[3])
    assert len(data.make_source("prepared", copy, "val")) == 2


# dataset_info.json

INFO_CHANGES = {
    "no name": (("name", del_), "dataset_info.json lacks name, which must be a text"),
    "name is a list": (("name", ["x"]), "name in .* must be a text, got a list of 1"),
    "name is null": (("name", None), "name in .* must be a text, got null"),
    "name is empty": (("name", ""), 'name in .* must be a name .*, got ""'),
    "name leaves": (("name", "../x"), r'name in .* must be a name .* without slashes, .*, got "\.\./x"'),
    "name has control characters": (("name", "a\x1b[2Jb\n"), r"got .a\\u001b\[2Jb\\n"),
    "name is half a character": (("name", "\ud800"), r"got .\\ud800"),
    "name is long": (("name", "x" * 256), "name in .* must be a name of at most 255 bytes"),
    "name is too long for a file": (("name", "x" * 240), r"splits\[0\].filepathTemplate in .* must be of a path below"),
    "no splits": (("splits", del_), "lacks splits, which must be a list"),
    "empty splits": (("splits", []), "splits in .* must be a list of one or more splits, got a list of 0"),
    "splits is an object": (("splits", {"train": {}}), "splits in .* must be a list, got an object"),
    "a split is a text": (("splits", 1, "train"), r'splits\[1\] in .* must be an object, got "train"'),
    "a split is null": (("splits", 0, None), r"splits\[0\] in .* must be an object, got null"),
    "a split without name": (("splits", 0, "name", del_), r"lacks splits\[0\].name, which must be a text"),
    "a split's name is a number": (("splits", 0, "name", 5), r"splits\[0\].name in .* must be a text, got 5"),
    "a split's name leaves": (("splits", 0, "name", "a/../b"), r"splits\[0\].name in .* must be a name"),
    "two splits of a name": (("splits", 1, "name", "train"), r"splits\[1\].name in .* name that no other split has"),
    "no shards": (("splits", 0, "shardLengths", []), r"The split train of .*dataset_info.json has no shards"),
    "no lengths": (("splits", 0, "shardLengths", del_), r"The split train of .* has no shards .shardLengths"),
    "lengths is a number": (("splits", 0, "shardLengths", 16), r"splits\[0\].shardLengths in .* a list, got 16"),
    "lengths is null": (("splits", 0, "shardLengths", None), "shardLengths in .* must be a list, got null"),
    "a length is negative": (("splits", 0, "shardLengths", 3, "-1"), r"shardLengths\[3\] in .* whole number .*got .-1"),
    "a length is broken": (("splits", 0, "shardLengths", 3, 1.5), r"shardLengths\[3\] in .* must be a whole .*got 1.5"),
    "a length is true": (("splits", 0, "shardLengths", 3, True), r"shardLengths\[3\] .* got true"),
    "a length is null": (("splits", 0, "shardLengths", 3, None), r"shardLengths\[3\] .* got null"),
    "a length is a list": (("splits", 0, "shardLengths", 3, [1]), r"shardLengths\[3\] .* got a list of 1"),
    "a length is not finite": (("splits", 0, "shardLengths", 3, "nan"), r"shardLengths\[3\] .* got .nan"),
    "a length is huge": (("splits", 0, "shardLengths", 3, 10**18), r"from 0 to 9007199254740992, got 10{18};"),
    "a length is endless": (("splits", 0, "shardLengths", 3, 10**4000), r"shardLengths\[3\] .* got Infinity"),
    "a length is large": (
        ("splits", 0, "shardLengths", 3, str(2**50)),
        f"shards of split train hold 17 records and shardLengths in .*dataset_info.json say {2**50 + 16}",
    ),
    "a length is wrong": (("splits", 0, "shardLengths", 3, "0"), "train hold 17 records and shardLengths .* say 16"),
    "bytes are a list": (("splits", 0, "numBytes", []), r"splits\[0\].numBytes in .* must be a whole number"),
    "shards are missing": (
        ("splits", 0, "shardLengths", ["1"] * 17),
        "lacks 17 shards, such as set_8-train.array_record",
    ),
    "no format": (("fileFormat", del_), "is prepared as nothing known, which needs TensorFlow"),
    "format is a list": (("fileFormat", ["array_record"]), "fileFormat in .* must be a text, got a list of 1"),
    "another format": (("fileFormat", "tfrecord"), "is prepared as tfrecord"),
    "template is a number": (("splits", 0, "filepathTemplate", 1), r"splits\[0\].filepathTemplate .* a text, got 1"),
}


def check_explained(folder, name, change, why):
    """Edits the file `name` of a prepared set, and expects one sentence about it that names the folder."""
    edit(folder / name, *change)
    with pytest.raises(UserError, match=why) as error:
        data.make_source("prepared", folder)
    assert str(folder) in one_sentence(error)


@pytest.mark.parametrize("what", INFO_CHANGES)
def test_a_wrong_dataset_info_is_explained(copy, what):
    check_explained(copy, INFO, *INFO_CHANGES[what])


def test_known_sets_explain_it_as_well(copy):
    edit(copy / INFO, "splits", "none")
    shutil.copytree(copy, copy.parent / "ffhq_256")
    (copy.parent / "images1024x1024").mkdir()
    with pytest.raises(UserError, match='splits in .*ffhq_256/dataset_info.json must be a list, got "none"'):
        data.make_source("ffhq", copy.parent, image_size=128)


# Templates of file names

SHARD = "set_8-train.array_record-{SHARD_X_OF_Y}"
OUTSIDE = [
    f"../out/{SHARD}",
    f"a/../../out/{SHARD}",
    f"./{SHARD}",
    f"/{{DATASET}}/{SHARD}",
    "{ROOT}/out/" + SHARD,
    f"link/{SHARD}",
    f"..\\out\\{SHARD}",
    f"\\\\host\\share\\{SHARD}",
    f"C:\\out\\{SHARD}",
    f"C:/out/{SHARD}",
    f"C:{SHARD}",
    f"file:///out/{SHARD}",
    f"gs://bucket/{SHARD}",
    f"a//{SHARD}",
    f"{SHARD}/",
    f"{SHARD}\n",
    f"{SHARD}\0",
    "x" * 300 + SHARD,
]


@pytest.mark.parametrize("template", OUTSIDE)
def test_no_template_leads_out_of_the_folder(copy, template, kind, monkeypatch):
    shutil.copytree(copy, copy.parent / "out")  # there are shards that could be read
    (copy / "a").mkdir()
    (copy / "link").symlink_to(copy.parent / "out")
    edit(copy / INFO, "splits", 0, "filepathTemplate", template.replace("{ROOT}", str(copy.parent)))
    monkeypatch.setattr("grain.sources.ArrayRecordDataSource", lambda paths: pytest.fail(f"opened {paths}"))
    with pytest.raises(UserError, match=r"splits\[0\].filepathTemplate in .*must be of a path below") as error:
        data.make_source(kind, copy)
    assert str(copy / INFO) in one_sentence(error)
    content = json.loads((copy / INFO).read_text())  # in the other spelling, and of a split that is not asked for
    content["splits"][0]["filepath_template"] = content["splits"][0].pop("filepathTemplate")
    (copy / INFO).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"filepathTemplate in .*must be of a path below"):
        data.make_source(kind, copy, "val")


FIELDS = ["{0}", "{}", "{DATASET", "}", "{{x}}", "{DATASET.__class__}", "{X}", "{SPLIT!r:>9}"]


@pytest.mark.parametrize("template", FIELDS)
def test_a_template_has_known_fields_alone(copy, template):
    edit(copy / INFO, "splits", 0, "filepathTemplate", template + "{SHARD_INDEX}")
    with pytest.raises(UserError, match="must be a template of {DATASET}, {SPLIT}, {FILEFORMAT}, .* got ") as error:
        data.make_source("prepared", copy)
    assert template in one_sentence(error)


def test_a_template_tells_shards_apart(copy):
    edit(copy / INFO, "splits", 0, "filepathTemplate", "{DATASET}-{SPLIT}.{NUM_SHARDS}")
    with pytest.raises(UserError, match="template with {SHARD_X_OF_Y}, since there are 16 shards, got .*NUM_SHARDS"):
        data.make_source("prepared", copy)


def test_shards_in_a_folder_below_and_links_to_files_are_read(copy, kind):
    expected = data.make_source("prepared", copy)[5]
    (copy / "sub").mkdir()
    for path in copy.glob("set_8-train*"):
        number = path.name.split("-")[2]
        path.replace(copy.parent / path.name)  # the user's own links lead where they like
        (copy / "sub" / f"train_{number}.set_8").symlink_to(copy.parent / path.name)
    edit(copy / INFO, "splits", 0, "filepathTemplate", "sub/{SPLIT}_{SHARD_INDEX}.{DATASET}")
    np.testing.assert_array_equal(data.make_source(kind, copy)[5], expected)


# features.json

IMAGE = ("featuresDict", "features", "image")
FEATURE_CHANGES = {
    "no dictionary": (("featuresDict", del_), "features.json lacks featuresDict, which must be an object"),
    "dictionary is a list": (("featuresDict", []), "featuresDict in .* must be an object, got a list of 0"),
    "no features": (("featuresDict", "features", del_), "lacks featuresDict.features, which must be an object"),
    "features are a list": (("featuresDict", "features", ["image"]), "features in .* an object, got a list of 1"),
    "features are empty": (("featuresDict", "features", {}), "has no image feature; give a set of images"),
    "a feature is a text": ((*IMAGE, "image"), 'featuresDict.features.image in .* must be an object, got "image"'),
    "a feature is null": ((*IMAGE, None), "features.image in .* must be an object, got null"),
    "no class": ((*IMAGE, {}), "lacks featuresDict.features.image.pythonClassName, which must be a text"),
    "class is a number": ((*IMAGE, {"pythonClassName": 1}), "image.pythonClassName in .* must be a text, got 1"),
    "an odd name": (("featuresDict", "features", "a\n b", 1), r'features."a\\n b" in .* must be an object, got 1'),
}


@pytest.mark.parametrize("what", FEATURE_CHANGES)
def test_wrong_features_are_explained(copy, what):
    check_explained(copy, FEATURES, *FEATURE_CHANGES[what])


def test_many_features_are_listed_in_part(copy):
    image = {"image": {}}
    edit(copy / FEATURES, "featuresDict", "features", {f"f{i}": image for i in range(1000)})
    with pytest.raises(UserError, match="several image features; .*: f0, f1, .*, f9 and 990 more"):
        data.make_source("prepared", copy)


def deep(levels: int) -> dict:
    feature = {"pythonClassName": "antigravity.X"}
    for _ in range(levels):
        feature = {"pythonClassName": LABEL, "sequence": {"feature": feature}}
    return feature


LABEL = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
FOR_TFDS = {
    "a foreign class": (
        ("x", {"pythonClassName": "antigravity.X", "text": {}}),
        "x.pythonClassName in .* must be a class of tensorflow_datasets, got .antigravity.X.*data.source=prepared",
    ),
    "a foreign class within": (
        ("x", {"pythonClassName": LABEL, "sequence": {"feature": {"python_class_name": "antigravity.X"}}}),
        "features.x.sequence.feature.pythonClassName in .* must be a class of tensorflow_datasets",
    ),
    "the old form": (
        ("x", {"type": LABEL, "content": {"names_file": "/etc/passwd"}, "pythonClassName": LABEL}),
        "features.x.type in .* must be absent",
    ),
    "a file's name": (
        ("x", {"pythonClassName": LABEL, "jsonFeature": {"json": '{"names_file": "/etc/passwd"}'}}),
        "features.x.jsonFeature.json in .* must be {}, got .*names_file",
    ),
    "a name that leaves": (("../x", {"pythonClassName": LABEL, "classLabel": {}}), r'The feature "../x" in .*below'),
    "a feature without a class": (("x", {"sequence": {}}), "lacks featuresDict.features.x.pythonClassName"),
    "an empty sequence": (
        ("x", {"pythonClassName": "tensorflow_datasets.A", "sequence": {}}),
        "lacks featuresDict.features.x.sequence.feature",
    ),
    "no such class": (("x", {"pythonClassName": "tensorflow_datasets.no.X", "text": {}}), "TFDS cannot open"),
    "a deep feature": (("x", deep(300)), r"^\.\.\.e\.sequence\.feature\..*\.pythonClassName in .* must be a class"),
    "an odd member": (("x", {"pythonClassName": LABEL, "classLabel": {"numClasses": []}}), "TFDS cannot open"),
}


@pytest.mark.parametrize("what", FOR_TFDS)
def test_tfds_runs_and_reads_nothing_that_features_name(copy, what):
    pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    (name, feature), why = FOR_TFDS[what]
    edit(copy / FEATURES, "featuresDict", "features", name, feature)
    with pytest.raises(UserError, match=why) as error:
        data.make_source("tfds", copy)
    assert str(copy) in one_sentence(error)


# What data.prepare keeps

SUMMARY_CHANGES = {
    "a split is a list": (("train", []), "train in .*prepare.json must be an object, got a list of 0"),
    "no plan": (("train", "plan", del_), "prepare.json lacks train.plan"),
    "plan is a text": (("train", "plan", "x"), 'train.plan in .* must be an object, got "x"'),
    "no format": (("train", "plan", "image_format", del_), "lacks train.plan.image_format, which must be a text"),
    "plan holds a list": (("train", "plan", "size", [8]), "train.plan.size in .* must be a single value, got a list"),
    "records are negative": (("train", "records", -1), "train.records in .* must be a whole number .*, got -1"),
    "no bytes": (("train", "bytes", del_), "lacks train.bytes, which must be a whole number"),
    "broken is an object": (("train", "broken", {}), "train.broken in .* must be a list, got an object"),
    "broken holds a name alone": (("train", "broken", [["x"]]), r"broken\[0\] in .* a name and a reason, got a list"),
    "broken holds numbers": (("train", "broken", [["x", 1]]), r"broken\[0\]\[1\] in .* must be a text, got 1"),
}


@pytest.mark.parametrize("what", SUMMARY_CHANGES)
def test_a_wrong_summary_is_explained(made, copy, what):
    change, why = SUMMARY_CHANGES[what]
    edit(copy / SUMMARY, *change)
    for split in ("train", "more"):  # one that is finished, and a new one
        with pytest.raises(UserError, match=why) as error:
            prepare.prepare(made.parent / "in", copy, Storage(size=8), split=split)
        one_sentence(error)


@pytest.mark.parametrize("plan", [[], {"fit": []}, {"fit": None}, {}, None])
def test_a_wrong_summary_is_explained_to_readers(copy, plan):
    edit(copy / SUMMARY, "train", "plan", plan)
    with pytest.raises(UserError, match=r"train.plan(.fit)?\b.*; copy or prepare the set again"):
        data.make_source("prepared", copy)


def interrupted(made, output):
    """Begins to prepare the set in `output`, and returns the folder of unfinished shards."""

    def stop(done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(made.parent / "in", output, Storage(size=8), progress=stop)
    return output / ".prepare" / "train"


@pytest.mark.parametrize(
    "text, why",
    [
        ("[]", "plan.json must hold an object, got a list of 0; delete .*train"),
        ("{", "plan.json cannot be read .it is not JSON"),
        ('{"size": {}}', "size in .*plan.json must be a single value, got an object"),
        ('{"size": "8"}', "unfinished split train with another size"),
    ],
)
def test_a_wrong_plan_is_explained(made, tmp_path, text, why):
    work = interrupted(made, tmp_path / "set_8")
    (work / "plan.json").write_text(text)
    with pytest.raises(UserError, match=why) as error:
        prepare.prepare(made.parent / "in", tmp_path / "set_8", Storage(size=8))
    one_sentence(error)


def test_a_plan_with_another_field_is_explained(made, tmp_path):
    work = interrupted(made, tmp_path / "set_8")
    edit(work / "plan.json", "colour", "blue")  # by another version
    with pytest.raises(UserError, match="unfinished split train with another colour"):
        prepare.prepare(made.parent / "in", tmp_path / "set_8", Storage(size=8))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", NESTED, '{"records": -1, "bytes": 1, "broken": []}'])
def test_a_shard_with_a_wrong_marker_is_written_again(made, tmp_path, text):
    work = interrupted(made, tmp_path / "set_8")
    for marker in work.glob("0000?.json"):
        marker.write_text(text)
        assert shards.read_done(marker.with_suffix("")) is None
    prepare.prepare(made.parent / "in", tmp_path / "set_8", Storage(size=8))
    for path in made.glob("set_8-train*"):
        assert (tmp_path / "set_8" / path.name).read_bytes() == path.read_bytes()


def test_a_marker_that_changes_at_the_end_is_explained(made, tmp_path):
    def break_marker(done, total):
        if done == total:
            (tmp_path / "set_8/.prepare/train/00003.json").write_text("{}")

    with pytest.raises(UserError, match="The shard .*00003 was changed by something else; delete .*train and start"):
        prepare.prepare(made.parent / "in", tmp_path / "set_8", Storage(size=8), progress=break_marker)


# Stores of latents


@pytest.fixture
def store(tmp_path):
    writer = latent_store.Writer(tmp_path / "store", {}, 4, {"moments": (2, 2, 3)})
    writer.add({"moments": np.ones((4, 2, 2, 3))})
    writer.commit()
    return tmp_path / "store"


PROGRESS = {
    "text": ('{"examples": "x"}', 'examples in .*progress.json must be a whole number .*, got "x"'),
    "negative": ('{"examples": -4}', "examples in .* must be a whole number .*, got -4"),
    "none": ("{}", "progress.json lacks examples, which must be a whole number"),
    "list": ("[4]", r"progress.json must hold an object, got a list of 1"),
    "nested": (NESTED, "progress.json cannot be read .it is nested too deeply"),
    "cut": ('{"examp', "progress.json cannot be read .it is not JSON"),
}


@pytest.mark.parametrize("what", PROGRESS)
def test_a_wrong_progress_of_a_store_is_explained(store, what):
    text, why = PROGRESS[what]
    (store / latent_store.PROGRESS).write_text(text)
    for use in (latent_store.finished, latent_store.Reader, lambda x: latent_store.Writer(x, {}, 4, {})):
        with pytest.raises(UserError, match=f"{why}.*; delete .*store") as error:
            use(store)
        one_sentence(error)


def test_more_progress_than_examples_is_explained(store):
    (store / latent_store.PROGRESS).write_text('{"examples": 5}')
    with pytest.raises(UserError, match="progress.json cannot be read .examples is 5, and the arrays have 4"):
        latent_store.Reader(store)
    with pytest.raises(UserError, match=r"moments.npy cannot be read .it has the shape \(4, 2, 2, 3\), not .* with 5"):
        latent_store.Writer(store, {}, 4, {"moments": (2, 2, 3)})
    with pytest.raises(UserError, match=r"has the shape \(4, 2, 2, 3\), not \(4, 2, 2, 6\)"):
        latent_store.Writer(store, {}, 4, {"moments": (2, 2, 6)})


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


ARRAYS = {
    "empty": b"",
    "text": b"not an array",
    "cut": header("{'descr': '<f4'")[:-3],
    "nested": header("[" * 5000),
    "no shape": header("{'descr': '<f4', 'fortran_order': False}\n"),
    "negative": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3)}\n"),
    "huge": header("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000000000)}\n"),
    "longer than the file": header("{'descr': '<f4', 'fortran_order': False, 'shape': (400000, 3)}\n"),
    "objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (4,)}\n") + b"\x80\x04N.",
    "integers": header("{'descr': '<i4', 'fortran_order': False, 'shape': (1,)}\n") + bytes(4),
    "no axis": header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}\n") + bytes(4),
    "zip": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_a_wrong_array_of_a_store_is_explained(store, what):
    (store / "moments.npy").write_bytes(ARRAYS[what])
    for use in (latent_store.Reader, lambda x: latent_store.Writer(x, {}, 4, {"moments": (2, 2, 3)})):
        with pytest.raises(UserError, match="The latents in .*moments.npy cannot be read .*; delete .*store") as error:
            use(store)
        one_sentence(error)


def test_arrays_of_a_store_have_one_length(store):
    np.save(store / "condition.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(UserError, match="must have one length, got condition.npy 3, moments.npy 4"):
        latent_store.Reader(store)
    for path in store.glob("*.npy"):
        path.unlink()
    with pytest.raises(UserError, match="must have one length, got no array"):
        latent_store.Reader(store)


# Split files


@pytest.mark.parametrize("text", ["/" * 200_000, "\0\n", "../" * 50_000 + "x\n", "a" * 10**6, "\r" * 100, "\ufeff"])
def test_odd_split_files_name_nothing(tmp_path, text):
    write(tmp_path / "set", ["a.png"])
    (tmp_path / "split.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match="(?s)^(None of the [0-9]+ names in|.{0,110} in) the split file.{0,600}$"):
        data.make_source("folder", tmp_path / "set", split_files=data.SplitFiles(tmp_path / "split.txt"))


def test_split_files_are_utf_8_with_or_without_a_mark(tmp_path):
    write(tmp_path / "set", ["ä.png", "b.png"])
    (tmp_path / "split.txt").write_bytes("\ufeffä\n".encode())
    source = data.make_source("folder", tmp_path / "set", "all", split_files=data.SplitFiles(tmp_path / "split.txt"))
    assert len(source) == 1 and source.name(0) == "ä.png"


# Chance


def mutate(value, draw: random.Random):
    """Returns a copy of a JSON value with one part replaced, left out or doubled."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = value.copy()
        how = draw.random()
        if how < 0.1:
            del value[key]
        elif how < 0.2:
            if isinstance(value, dict):
                value[draw.choice(["", "x", "type", "image", "json", "../y"])] = value[key]
            else:
                value.append(value[key])
        else:
            value[key] = mutate(value[key], draw)
        return value
    return draw.choice(ANYTHING)


def garble(content: bytes, draw: random.Random) -> bytes:
    """Returns bytes with some of them changed, left out or doubled."""
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content))
        again = content[at : at + draw.randint(1, 50)]
        piece = draw.choice([b"", b"\xff", b"{", b"]", b'"', b"\\", b"-", b"9" * 30, again])
        content[at : at + draw.randint(0, 3)] = piece
    return bytes(content)


def test_whatever_changes_in_the_metadata_is_one_sentence_or_harmless(made, copy):
    draw, expected, refused = random.Random(0), data.make_source("prepared", made, "all")[0], 0
    for _ in range(250):
        file = draw.choice([INFO, FEATURES, SUMMARY])
        content = (made / file).read_bytes()
        by_value = draw.random() < 0.7
        change = json.dumps(mutate(json.loads(content), draw)).encode() if by_value else garble(content, draw)
        (copy / file).write_bytes(change)
        for split in ("train", "val"):
            try:
                image = data.make_source("prepared", copy, split)[0]
            except UserError as e:
                assert "\n" not in str(e) and str(e).endswith(".") and str(copy) in str(e), (change, e)
                refused += 1
            else:
                assert image.shape == expected.shape, change
        if file == SUMMARY:
            try:
                prepare.prepare(made.parent / "in", copy, Storage(size=8), split="train")
            except UserError as e:
                assert str(copy) in str(e), (change, e)
        shutil.copy(made / file, copy / file)
    assert 125 < refused < 500  # chance does reach what is read


def test_whatever_changes_in_the_metadata_is_one_sentence_through_tfds(made, copy):
    pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    draw = random.Random(1)
    for _ in range(60):
        file = draw.choice([INFO, FEATURES])
        change = json.dumps(mutate(json.loads((made / file).read_bytes()), draw)).encode()
        (copy / file).write_bytes(change)
        try:
            data.make_source("tfds", copy, "train")[0]
        except UserError as e:
            assert "\n" not in str(e) and str(e).endswith(".") and str(copy) in str(e), (change, e)
        shutil.copy(made / file, copy / file)
