"""Models on disk: weights that are not those of config.json are told before anything runs; what an export holds."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from recipes import tiny

import arbiscale_jax as aj
from arbiscale_jax import UserError
from arbiscale_jax.artifacts import fit, registry, storage
from arbiscale_jax.artifacts.weights import load_weights, save_weights
from arbiscale_jax.cli import export, program, sample
from arbiscale_jax.inference import loading
from arbiscale_jax.runtime.whole_files import replacing


@pytest.fixture(scope="module")
def model():
    """The `model` part of a configuration."""
    return tiny("align").model.to_dict()


@pytest.fixture(scope="module")
def weights(model):
    """Random weights of all its networks."""
    rng, tree = np.random.default_rng(0), {"scale_factor": np.float32(0.5)}
    for name in ("first_stage", "unet"):
        flat = storage.flatten(fit.network_shapes(model, name))
        tree[name] = storage.unflatten({k: rng.normal(0, 0.1, x.shape).astype(np.float32) for k, x in flat.items()})
    return tree


@pytest.fixture
def folder(tmp_path, model, weights):
    """An exported model."""
    registry.write_export(tmp_path / "model", {"model": model}, weights, "", np.float16)
    return tmp_path / "model"


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr(loading, "Model", pytest.fail)


def change(folder, edit):
    """Edits config.json: `edit` changes the dict in place."""
    path = folder / storage.CONFIG
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def refused(folder, match):
    """Expects aj.load to say what is wrong in one sentence."""
    with pytest.raises(UserError, match=match) as caught:
        aj.load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


# --- config.json ---


@pytest.mark.parametrize(
    "content, match",
    [
        (b"[1]", r"config.json holds \[1\], where an object of fields is expected"),
        (b'{"model": "\xff"}', "config.json cannot be read as JSON .*utf-8"),
        (b'{"model": ', "config.json cannot be read as JSON"),
        (b"[" * 100_000, "config.json cannot be read as JSON"),
        (b"{}", "config.json lacks the field model, an object of fields"),
        (b'{"model": []}', r"model in .*config.json is \[\], where an object of fields is expected"),
        (b'{"model": {}}', "lacks the field model.condition, an object of fields"),
        (b'{"model": {"nets": {}}}', "unknown field model.nets = {}, where condition, first_stage, .* are expected"),
    ],
)
def test_a_broken_config_file_is_told(content, match, folder, nothing_runs):
    (folder / storage.CONFIG).write_bytes(content)
    refused(folder, match)


@pytest.mark.parametrize(
    "section, field, value, match",
    [
        ("unet", "model_channels", ..., "lacks the field model.unet.model_channels, a whole number >= 0"),
        (
            "unet",
            "model_channels",
            "8",
            "model.unet.model_channels in .* is '8', where a whole number >= 0 is expected",
        ),
        ("unet", "model_channels", 8.5, "model_channels in .* is 8.5, where a whole number"),
        ("unet", "num_res_blocks", [1, 0], r"is \[1, 0\], where a whole number or a list of them is expected"),
        ("unet", "dropout", None, "model.unet.dropout in .* is None, where a number is expected"),
        ("first_stage", "double_z", 1, "model.first_stage.double_z in .* is 1, where true or false is expected"),
        ("first_stage", "ch_mult", 2, "model.first_stage.ch_mult in .* is 2, where a list is expected"),
        ("first_stage", "subcell", {"blocks": 4}, "lacks the field model.first_stage.subcell.convs"),
        (
            "liif",
            "width",
            8,
            "unknown field model.liif.width = 8, where cell_decode, hidden, local_ensemble are expected",
        ),
        ("schedule", "linear_end", 2, "model.schedule in .* gives no noise schedule .A schedule needs .*, 2.; correct"),
        ("schedule", "linear_end", float("nan"), "model.schedule.linear_end in .* is nan, where a number is expected"),
        ("condition", "interpolation", "cubic", "is 'cubic', where one of bilinear, nearest, bicubic is expected"),
        ("sampling", "steps", True, "model.sampling.steps in .* is True, where a whole number >= 1 is expected"),
        ("sampling", "sampler", ["ddim"], "where one of ddim, dpmpp, ddim_trailing is expected"),
    ],
)
def test_a_wrong_field_of_the_model_is_named(section, field, value, match, folder, nothing_runs):
    def edit(config):
        config["model"][section][field] = value
        if value is ...:
            del config["model"][section][field]

    change(folder, edit)
    refused(folder, match)


def test_another_format_is_left_to_its_own_version(folder, nothing_runs):
    change(folder, lambda config: config.update(format=2))
    refused(folder, "format in .*config.json is 2, where 1 is expected")


# --- weights ---


def test_a_wrong_width_in_the_config_is_told_by_the_first_weight(folder, nothing_runs):
    change(folder, lambda config: config["model"]["liif"].update(hidden=[16, 24]))
    refused(
        folder,
        r"Weight first_stage/liif/bias_1 of .*weights.safetensors is \(16,\) where .*config.json needs \(24,\)",
    )


def test_networks_that_cannot_be_built_are_told(folder, nothing_runs):
    change(folder, lambda config: config["model"]["first_stage"].update(num_groups=3))
    refused(folder, "describes a first_stage that cannot be built .GroupNorm needs channels .* num_groups=3, got 8")


def extra(tree):
    tree["unet/conv_in/extra"] = np.zeros(2, np.float32)


def transposed(tree):
    tree["unet/conv_out/kernel"] = tree["unet/conv_out/kernel"].swapaxes(2, 3)


@pytest.mark.parametrize(
    "edit, match",
    [
        (
            lambda tree: tree.pop("unet/conv_out/bias"),
            r"lacks the weight unet/conv_out/bias, .* needs with shape \(2,\)",
        ),
        (
            extra,
            r"weights.safetensors holds the weight unet/conv_in/extra \(2,\), which the networks of .*config.json lack",
        ),
        (transposed, r"Weight unet/conv_out/kernel of .* is \(3, 3, 2, 8\) where .*config.json needs \(3, 3, 8, 2\)"),
        (lambda tree: tree.pop("scale_factor"), "lacks the weight scale_factor, a number > 0"),
        (
            lambda tree: tree.update({"unet/conv_out/bias": np.zeros(2, np.int8)}),
            "Weight unet/conv_out/bias of .* has the type int8, where floating-point numbers are expected",
        ),
        (lambda tree: tree.update(scale_factor=np.float32("nan")), "Weight scale_factor of .* is nan, where a finite"),
        (lambda tree: tree.update(scale_factor=np.ones(2)), r"Weight scale_factor of .* is \(2,\) where .* needs \(\)"),
    ],
)
def test_a_wrong_weight_is_named_with_what_was_expected(edit, match, folder, weights, nothing_runs):
    flat = dict(storage.flatten(weights))
    edit(flat)
    save_weights(folder / storage.WEIGHTS, storage.unflatten(flat))
    refused(folder, match)


def test_a_foreign_or_truncated_file_is_told(folder, nothing_runs):
    path = folder / storage.WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(folder, "weights.safetensors is not a readable safetensors file .*incomplete")
    Image.new("RGB", (8, 8)).save(path, format="png")
    refused(folder, "weights.safetensors is not a readable safetensors file")
    save_weights(path, {"layer1.weight": np.zeros((3, 3), np.float32)})
    refused(folder, r"holds the weight layer1.weight \(3, 3\), which the networks of .*config.json lack")
    save_weights(path, {})
    refused(folder, "lacks the weights of first_stage/encoder, first_stage/decoder, first_stage/liif")


def test_a_command_says_it_in_one_line(folder, tmp_path, monkeypatch, capsys, nothing_runs):
    monkeypatch.setattr(program, "start_jax", lambda: None)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    change(folder, lambda config: config["model"]["unet"].pop("num_groups"))
    argv = ["--task=upscale", f"--model={folder}", f"--input={tmp_path / 'photo.png'}", "--scale=2"]
    assert program.run(sample.main, [*argv, f"--output={tmp_path / 'out'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "lacks the field model.unet.num_groups" in lines[0]


def test_what_was_checked_when_it_was_written_is_not_traced_again(folder, weights, monkeypatch):
    monkeypatch.setattr(registry, "network_shapes", pytest.fail)
    loaded = aj.load(folder)
    kernel = weights["unet"]["conv_in"]["kernel"].astype(np.float16)
    np.testing.assert_array_equal(loaded.params["unet"]["conv_in"]["kernel"], kernel)
    change(folder, lambda config: config["model"]["sampling"].update(steps=7))  # shapes no weight
    assert aj.load(folder).config["sampling"]["steps"] == 7


def test_an_export_of_the_first_version_opens(folder, weights):
    later = {
        "first_stage": ("architecture", "decoder", "decoder_ch", "norm", "subcell"),
        "unet": ("architecture", "norm", "mid_attention", "strength", "labels"),
    }
    later["sampling"] = ("restore", "finest", "densest", "start", "refine", "border", "cell_min", "cell_max")
    later["sampling"] += ("guidance", "guidance_low", "guidance_high")

    def edit(config):
        del config["format"], config["fits"]
        for section, fields in later.items():
            for field in fields:
                del config["model"][section][field]

    complete = aj.load(folder).config
    change(folder, edit)
    save_weights(folder / storage.WEIGHTS, {**weights, "scale_factor": np.float32([0.5])})
    loaded = aj.load(folder)
    assert loaded.config == complete and loaded.scale_factor == 0.5


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"unet": {"w": np.zeros(2), "b": np.zeros(1)}},
            r"Weight unet/w of the run is \(2,\) where this config needs \(3,\); mend it.",
        ),
        ({"unet": {"w": np.zeros(3)}}, r"the run lacks the weight unet/b, which this config needs with shape \(1,\)"),
        ({"unet": {"w": np.zeros(3), "b": np.zeros(1), "c": np.zeros(1)}}, r"the run holds the weight unet/c \(1,\)"),
    ],
)
def test_weights_are_checked_strictly_and_whole_networks_may_be_absent(given, message):
    shapes = {"unet": {"w": np.zeros(3), "b": np.zeros(1)}, "first_stage": {"liif": {"w": np.zeros(1)}}}
    with pytest.raises(UserError, match=message):
        fit.check_fit(given, shapes, "the run", "this config", "mend it")
    fit.check_fit({"first_stage": shapes["first_stage"]}, shapes, "the run", "this config", "mend it")


# --- what an export holds ---

PRIVATE = "/private/of/someone"


@pytest.fixture
def run(folder, tmp_path):
    """What stands for a training run, every text in whose configuration is a path."""
    path = tmp_path / "a_run"
    shutil.copytree(folder, path)

    def private(tree):
        if isinstance(tree, dict):
            return {key: private(value) for key, value in tree.items()}
        return f"{PRIVATE}/one, {PRIVATE}/two/" if isinstance(tree, str) else tree

    texts = private({k: v for k, v in tiny("align").to_dict().items() if k != "model"})
    change(path, lambda config: config.update(json.loads(json.dumps(texts))))
    return path


def test_an_export_names_no_path_of_the_machine(run, tmp_path):
    out = aj.export(run, tmp_path / "out")
    about = json.loads((out / storage.CONFIG).read_text())
    training = about["training"]
    assert training["data"]["root"] == training["init_from"] == "one,two" and training["data"]["image_size"] == 16
    assert set(about) == {"format", "model", "training", "fits"}
    for name in (storage.CONFIG, registry.CARD):
        text = (out / name).read_text()
        assert "someone" not in text and str(tmp_path) not in text
    assert "Trained on: one,two one,two, crops of 16" in text and text.startswith("# a_run\n")


@pytest.mark.parametrize(
    "path, last",
    [
        ("data/photos", "photos"),
        ("~/a b/c d", "c d"),
        (r"C:\Users\x\set", "set"),
        ("gs://b/x,/y/z", "x,z"),
        ("ddim", "ddim"),
    ],
)
def test_a_path_is_reduced_to_its_last_part(path, last):
    assert registry.without_paths({"a": [path, 3, None]}) == {"a": [last, 3, None]}


def test_an_export_replaces_nothing_unasked(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "start_jax", lambda: None)
    out = aj.export(run, tmp_path / "out", dtype=np.float32)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        UserError, match=r"out holds an exported model already; give --overwrite \(in Python overwrite=True"
    ):
        aj.export(run, out)
    argv = [f"--run={run}", f"--output={out}"]
    assert program.run(export.main, argv) == 2 and "already; give --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert program.run(export.main, [*argv, "--overwrite"]) == 0
    assert load_weights(out / storage.WEIGHTS)["unet"].keys() and len(before[storage.WEIGHTS]) > 1.5 * os.path.getsize(
        out / storage.WEIGHTS
    )
    (out / storage.WEIGHTS).unlink()
    with pytest.raises(UserError, match="exists and is not an exported model"):
        aj.export(run, out, overwrite=True)


def test_a_failed_export_leaves_the_old_one_whole(folder, weights, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry, "save_weights", full)
    with pytest.raises(UserError, match="cannot be written .*No space left"):
        registry.write_export(folder, {"model": model}, weights, "new", np.float32)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    narrow = {**model, "liif": {**model["liif"], "hidden": (16, 24)}}
    with pytest.raises(UserError, match="of the model to write is .* where its configuration needs"):
        registry.write_export(folder, {"model": narrow}, weights, "new", np.float32)


@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_files_have_the_mode_that_the_umask_gives(mask, run, tmp_path):
    before = os.umask(mask)
    try:
        out = aj.export(run, tmp_path / "out")
        save_weights(tmp_path / storage.FROZEN, {"a": np.zeros(2)})
        with replacing(tmp_path / "text") as part:
            part.write_text("x")
    finally:
        os.umask(before)
    files = [*out.iterdir(), tmp_path / storage.FROZEN, tmp_path / "text"]
    assert len(files) == 5 and {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
