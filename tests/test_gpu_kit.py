"""The GPU kit, rehearsed on the CPU: every stage, weights on disk, a second call that goes on, the judge."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import pixels
from waiting import run

import arbiscale_jax as aj
from arbiscale_jax.artifacts.weights import load_weights

KIT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu"


def rehearse(name, folder, minutes):
    options = ["--rehearse", "--minutes", str(minutes), "--out", str(folder / "out")]
    command = [sys.executable, str(KIT / f"{name}.py"), *options]
    done = run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_photos_are_rehearsed_and_a_second_call_goes_on(tmp_path):
    said = rehearse("photos", tmp_path, 0.1)
    order = [said.index(f"{stage} step") for stage in ("first_stage", "diffusion", "align")]
    assert order == sorted(order) and "TFLOP/s" in said and "weave" in said
    progress = json.loads((tmp_path / "out.state" / "progress.json").read_text())
    assert progress["part"] == "align" and progress["share"] == 1
    weights = load_weights(tmp_path / "out" / "model" / "weights.safetensors")
    assert set(weights) == {"first_stage", "unet", "scale_factor"}
    model = aj.load(tmp_path / "out" / "model")
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    assert model.upscale(image, scale=2.5, restore=0.3).shape == (30, 50, 3)
    assert "ours" in (tmp_path / "out" / "judge.txt").read_text()
    assert pixels(tmp_path / "out" / "sheet.jpg").shape[1] == 3 * 64

    said = rehearse("photos", tmp_path, 0.05)
    assert f"Going on with align at step {progress['step']}" in said and "first_stage step" not in said
    after = json.loads((tmp_path / "out.state" / "progress.json").read_text())
    assert after["step"] > progress["step"]
    later = load_weights(tmp_path / "out" / "model" / "weights.safetensors")
    encoders = [one["first_stage"]["encoder"]["linear"]["kernel"] for one in (weights, later)]
    np.testing.assert_array_equal(*encoders)  # E is frozen in alignment
    last = [one["unet"]["conv_out"]["kernel"] for one in (weights, later)]
    assert not np.array_equal(*last)


@pytest.mark.parametrize("name", ["photos", "emoji"])
def test_a_pack_is_asked_for(name):
    done = run([sys.executable, str(KIT / f"{name}.py")])
    assert done.returncode == 2 and "--pack is needed" in done.stderr
