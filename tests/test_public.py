"""What a caller sees first: names, annotations, misspelt options, versions."""

import inspect
import os
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax

import arbiscale_jax as aj
from arbiscale_jax import interop
from arbiscale_jax.artifacts import storage
from arbiscale_jax.cli import main, program
from arbiscale_jax.runtime import xla_flags

CONVOLUTION = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
ROOT = Path(__file__).parent.parent
IMAGE = np.zeros((8, 8, 3), np.uint8)
METHODS = [method for name, method in inspect.getmembers(aj.Model, inspect.isfunction) if not name.startswith("_")]


def test_dir_shows_what_is_loaded_late():
    assert {"load", "export", "Model", "UserError", "bundled_models", "interop", "read", "save", "__version__"} <= set(
        dir(aj)
    )
    assert set(interop.__all__) <= set(dir(interop))


@pytest.mark.parametrize(
    "function", [*METHODS, aj.load, aj.export, aj.bundled_models, aj.read, aj.save], ids=lambda f: f.__name__
)
def test_public_functions_are_annotated_and_documented(function):
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert all(p.annotation is not p.empty for p in parameters) and "return" in function.__annotations__
    assert function.__doc__


@pytest.mark.parametrize(
    "call",
    [
        lambda: aj.Model.upscale(None, IMAGE, scale=2, stepz=3),
        lambda: next(aj.Model.upscale_each(None, IMAGE, (9, 9), stepz=3)),
        lambda: aj.Model.upscale_latent(None, IMAGE, stepz=3),
        lambda: aj.Model.generate(None, 2, stepz=3),
        lambda: list(aj.Model.generate_each(None, 2, stepz=3)),
    ],
)
def test_a_misspelt_option_is_named(call):
    with pytest.raises(TypeError, match="'stepz'"):
        call()


def test_a_misspelt_option_is_told_the_nearest_one():
    with pytest.raises(TypeError, match=r"did you mean restore\?.* the options are steps, sampler, .*progress\."):
        aj.Model.upscale(None, IMAGE, scale=2, restor=1.0)


@pytest.mark.parametrize("script", ["run_train.py", "run_sample.py", "run_eval.py", "run_quickstart.py"])
def test_scripts_tell_their_version(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert capsys.readouterr().out == f"arbiscale_jax {aj.__version__}\n"


@pytest.mark.parametrize(
    "command", ["", "quickstart", "prepare", "train", "upscale", "generate", "eval", "export", "convert"]
)
def test_the_command_and_its_subcommands_tell_their_version(command, capsys):
    assert program.run(main.dispatch, [*command.split(), "--version"]) == 0
    assert capsys.readouterr().out == f"arbiscale_jax {aj.__version__}\n"


def test_repr_says_in_one_line_what_a_model_is():
    first_stage, unet = {"encoder": {"kernel": np.zeros((1000, 2))}}, {"conv_in": {"bias": np.zeros(7)}}
    configs = {name: storage.read_config(path)["model"] for name, path in aj.bundled_models().items()}
    photos = aj.Model(configs["photos"], {"first_stage": first_stage, "unet": unet}, name="photos")
    task = "super-resolution by any factor, trained for x4"
    assert repr(photos) == f"<Model photos: {task}, 2,007 parameters, float32>"
    emoji = aj.Model(configs["emoji"], {"first_stage": first_stage, "unet": unet}, dtype="bfloat16")
    task = "generation at any size, trained for 64 x 64"
    assert repr(emoji) == f"<Model without a name: {task}, 2,007 parameters, bfloat16>"
    alone = aj.Model(configs["emoji"], {"first_stage": first_stage}, name="kl_f8")
    assert repr(alone) == "<Model kl_f8: auto-encoder, 2,000 parameters, float32>"


# --- how XLA computes on a CPU ---


@pytest.mark.parametrize(
    "version, given, wanted",
    [
        ("0.10.2", "", "FLAG="),
        ("0.10.0", "--xla_dump_to=x", "--xla_dump_to=x FLAG="),
        ("0.10.2", "FLAG=LIBRARY_FUSION_TYPE_DOT", "FLAG=LIBRARY_FUSION_TYPE_DOT"),
        ("0.99.0", "--xla_dump_to=x", "--xla_dump_to=x"),
    ],
)
def test_convolutions_are_eigens_unless_the_user_decides(monkeypatch, version, given, wanted):
    monkeypatch.setattr(jax, "__version__", version)
    monkeypatch.setenv("XLA_FLAGS", given.replace("FLAG", xla_flags.FLAG))
    xla_flags.prefer_eigen()
    assert os.environ["XLA_FLAGS"] == wanted.replace("FLAG", xla_flags.FLAG)


@pytest.mark.skipif(not jax.__version__.startswith(xla_flags.VERSIONS), reason="measured for other versions of JAX")
def test_the_flag_does_what_it_is_for():
    """conftest.py sets it, as programs do by prefer_eigen."""
    x, kernel = np.ones((1, 32, 32, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    conv = jax.jit(lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout))
    lowered, choice = conv.lower(x, kernel), {xla_flags.FLAG.strip("-"): CONVOLUTION}
    assert ["ynn" in lowered.compile(options).as_text() for options in ({}, choice)] == [False, True]
