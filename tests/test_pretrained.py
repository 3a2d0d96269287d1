"""The bundled models: what they may weigh and compute, what ships beside them, and that they do what they are for."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_modules import module
from image_files import pixels
from PIL import Image
from safetensors import safe_open

import arbiscale_jax as aj
from arbiscale_jax import models
from arbiscale_jax.artifacts import fit, storage
from arbiscale_jax.cli import sample
from arbiscale_jax.experiments.bundled import NAMES, get_bundled_config
from arbiscale_jax.experiments.quickstart import STAGES

ROOT = Path(__file__).resolve().parents[1]
MEGABYTES = {"photos": 24, "emoji": 12}


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_model_is_small_and_says_what_it_is(name):
    folder = aj.bundled_models()[name]
    weights = folder / storage.WEIGHTS
    assert weights.stat().st_size <= MEGABYTES[name] * 1e6
    with safe_open(weights, "np") as f:
        assert {f.get_slice(key).get_dtype() for key in f.keys() if key != "scale_factor"} == {"F16"}
    card = (folder / "README.md").read_text()
    for word in ("Licence", "Metrics", "Limits", "Intended use", "Seed", "Hardware", "Data"):
        assert word in card, word
    about = json.loads((folder / storage.CONFIG).read_text())
    # so that aj.load need not trace the networks
    assert about["fits"] == fit.fingerprint(about["model"], storage.read_weights(folder))
    trained = get_bundled_config(name, STAGES[-1]).model.to_dict()
    for part in ("first_stage", "liif", "unet", "schedule", "condition"):  # the config makes this architecture again
        assert models.complete(about["model"])[part] == json.loads(json.dumps(trained[part]))


def test_a_folder_of_pictures_hides_no_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert storage.locate("photos") == aj.bundled_models()["photos"]
    (tmp_path / "photos" / storage.CONFIG).write_text("{}")  # a run, or an exported model
    assert storage.locate("photos") == Path("photos")


def test_photos_computes_at_most_1_5_tflop_for_a_megapixel():
    config = storage.read_config(aj.bundled_models()["photos"])["model"]
    parts = module("model_cost").upscale_flops(config, 256, 4)
    assert config["sampling"]["steps"] <= 10 and not config["first_stage"]["mid_attention"]
    assert parts["unet"] > parts["encoder"] > 1e10 and parts["total"] <= 1.5e12


def test_an_upscaled_photograph_keeps_its_colours_and_gains_detail(tmp_path, capsys):
    photo = ROOT / "examples" / "astronaut.png"
    lr = Image.fromarray(pixels(photo)[8:56, 48:96])
    lr.save(tmp_path / "face.png")
    sample.main([f"--input={tmp_path / 'face.png'}", "--scale=3.3", f"--output={tmp_path}"], task="upscale")
    out = pixels(tmp_path / "face_x3.3.png")
    assert out.shape == (158, 158, 3)
    x, y = (np.asarray(image, np.float64) for image in (lr, out))
    np.testing.assert_allclose(y.mean((0, 1)), x.mean((0, 1)), atol=1.0)
    smooth = np.asarray(lr.resize((158, 158), Image.Resampling.BICUBIC), np.float64)
    assert 25 < 10 * np.log10(255**2 / np.mean((y - smooth) ** 2)) < 45  # the same picture, yet another
    assert np.abs(np.diff(y, axis=0)).mean() > np.abs(np.diff(smooth, axis=0)).mean()  # sharper
    assert json.loads((tmp_path / "sample.json").read_text())["model"] == "photos"


def test_colours_stay_at_scales_beyond_training():
    lr = pixels(ROOT / "examples" / "astronaut.png")[8:56, 48:96]
    model = aj.load("photos")
    z = model.upscale_latent(lr)
    for side in (72, 576):
        np.testing.assert_allclose(model.render(z, (side, side))[0].mean((0, 1)), lr.mean((0, 1)), atol=1.0)


def test_generated_emoji_stand_on_white_at_every_size(tmp_path, capsys):
    argv = ["--num=2", "--steps=10", "--sizes=64,96", f"--output={tmp_path}"]
    sample.main(argv, task="generate")
    for i in range(2):
        small, large = (np.float64(pixels(tmp_path / f"sample_0_{i:03d}_{n}x{n}.png")) for n in (64, 96))
        corners = np.stack([small[y : y + 3, x : x + 3] for y in (2, -5) for x in (2, -5)])
        assert corners.mean() > 225
        assert small[8:-8, 8:-8].std() > 20  # something is drawn
        again = np.asarray(Image.fromarray(np.uint8(large)).resize((64, 64), Image.Resampling.BICUBIC), np.float64)
        assert 10 * np.log10(255**2 / np.mean((again - small) ** 2)) > 24
    assert json.loads((tmp_path / "sample.json").read_text())["model"] == "emoji"
