"""The command line: mistakes end in one sentence and exit code 2, and leave nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from image_files import pixels
from PIL import Image
from waiting import run

from arbiscale_jax import images
from arbiscale_jax.artifacts import storage
from arbiscale_jax.artifacts.storage import bundled_models
from arbiscale_jax.cli import (
    config_flag,
    evaluate,
    export,
    files,
    main,
    program,
    run_quickstart,
    sample,
    sizes,
    train,
)
from arbiscale_jax.errors import UserError
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.images import read_image, row_saving

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with good and bad inputs, which is also the working directory."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    photo.save(tmp_path / "photo.png")
    photo.save(tmp_path / "photo.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:900])
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:900])
    (tmp_path / "text.png").write_text("This is not a picture.\n")
    (tmp_path / "zero.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "copy").mkdir()
    photo.save(tmp_path / "copy" / "photo.png")
    (tmp_path / "pair").mkdir()
    for name in ("a.png", "a_x2.png"):
        photo.save(tmp_path / "pair" / name)
    (tmp_path / "pair" / "._a.png").write_text("What some systems leave beside a picture.\n")
    for name, bundled in (("m", "photos"), ("g", "emoji")):  # models' settings; their weights are never read
        (tmp_path / name).mkdir()
        shutil.copy(bundled_models()[bundled] / storage.CONFIG, tmp_path / name)
        (tmp_path / name / storage.WEIGHTS).write_bytes(b"")
    (tmp_path / "without.py").write_text("x = 1\n")
    (tmp_path / "wrong.py").write_text("def get_config():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class FakeModel:
    """Renders the seed."""

    config = {"sampling": {"steps": 50, "sampler": "ddim", "eta": 0.0, "size": 8}}

    def upscale_each(self, images, sizes, samples, *, seed, progress, box, **sampling):
        for number, (image, size) in reversed(list(enumerate(zip(images, sizes, strict=True)))):
            assert image.dtype == np.uint8 and image.ndim == 3
            for [i], [z] in self.generate_each(samples, range(samples), seed=seed, progress=progress, **sampling):
                yield number, i, self.viewer(z).rows(box[2:] if box else size)

    def generate_each(self, num, wanted, *, seed, progress, **sampling):
        for i in wanted:
            progress(i + 1, num)
            yield [i], np.full((1, 2, 2, 3), seed + i)

    def viewer(self, z):
        def rows(size):
            yield np.full((1, size[1], 3), z[0, 0, 0], np.uint8)
            yield np.full((size[0] - 1, size[1], 3), z[0, 0, 0], np.uint8)

        return SimpleNamespace(rows=rows)


def error_of(capsys, command, argv) -> str:
    """Runs a command that must fail and returns its only line of output."""
    assert program.run(command, argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err), captured.err
    return captured.err


UPSCALE = ["--task=upscale", "--model=m", "--output=out"]
GOOD = [*UPSCALE, "--input=photo.png"]
GENERATE = ["--task=generate", "--model=g", "--output=out"]


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "Give --task"),
        (["--task=paint"], "--task=paint"),
        (UPSCALE, "Give --input"),
        ([*UPSCALE, "--input=nowhere"], "--input=nowhere does not exist"),
        ([*UPSCALE, "--input=empty"], "no image file"),
        ([*UPSCALE, f"--input={300 * 'x'}"], "cannot be opened (File name too long)"),
        ([*UPSCALE, "--input=text.png"], "text.png is no"),
        ([*UPSCALE, "--input=pair", "--output=./pair", "--scale=2"], "pair/a_x2.png would replace an input"),
        ([*UPSCALE, "--input=zero.png"], "zero.png is empty"),
        ([*UPSCALE, "--input=cut.jpg"], "cut.jpg is damaged or truncated"),
        ([*UPSCALE, "--input=cut.png"], "cut.png is damaged or truncated"),
        ([*UPSCALE, "--input=dot.png"], "dot.png has 1 x 1 pixels"),
        ([*UPSCALE, "--input=photo.png", "pair", "empty"], "--input=empty holds no image file"),
        ([*GOOD, "copy/photo.png"], "2 inputs are called photo.png"),
        ([*GOOD, "--max-pixels=2399"], "more than the 2399 that are accepted"),
        ([*GOOD, "--scale=0"], "--scale=0 is no scale"),
        ([*GOOD, "--scale=-1"], "--scale=-1 is no scale"),
        ([*GOOD, "--scale=nan"], "--scale=nan is no scale"),
        ([*GOOD, "--scale=inf"], "--scale=inf is no scale"),
        ([*GOOD, "--scale=1e9"], "--max-output-pixels"),
        ([*GOOD, "--scale=1e308"], "--max-output-pixels"),
        ([*GOOD, "--scale=0.001"], "give a larger scale"),
        ([*GOOD, "--scale=big"], "--scale=big"),
        ([*GOOD, "--scale=2", "--size=3x4"], "exclude each other"),
        ([*GOOD, "--size=9x"], "--size=9x is no size"),
        ([*GOOD, "--size=0"], "--size=0 is no size"),
        ([*GOOD, "--long-side=9", "--size=9"], "exclude each other"),
        ([*GOOD, "--size=0x9"], "--size=0x9 is no size"),
        ([*GOOD, "--box=1,2,3"], "--box=1,2,3 is no window"),
        ([*GOOD, "--box=1,2,0,3"], "--box=1,2,0,3 has no pixels"),
        ([*GOOD, "--scale=2", "--box=0,100,10,21"], "--box=0,100,10,21 is not inside the 80 x 120 pixels of photo.png"),
        ([*GOOD, "--samples=0"], "--samples=0"),
        ([*GOOD, "--steps=0"], "--steps=0"),
        ([*GOOD, "--seed=-1"], "--seed=-1"),
        ([*GOOD, "--eta=nan"], "--eta=nan"),
        ([*GOOD, "--eta=2"], "--eta=2"),
        ([*GOOD, "--sampler=euler"], "--sampler=euler"),
        ([*GOOD, "--num=3"], "--num belongs to the task generate"),
        ([*GOOD, "--sacle=2"], "did you mean scale"),
        ([*GOOD, "--output=result.bmp"], "looks like a file"),
        ([*GOOD, "photo.jpg", "--output=result.png"], "result.png names one result, but 2 are asked for"),
        ([*GOOD, "--output=photo.png"], "photo.png would replace an input"),
        ([*GOOD, "--output=text.png/out"], "text.png is a file"),
        ([*GENERATE, "--scale=2"], "--scale belongs to the task upscale"),
        ([*GENERATE, "--num=0"], "--num=0"),
        ([*GENERATE, "--sizes=12x"], "--sizes=12x is no size"),
        ([*GENERATE, "--sizes=99999x99999"], "--max-output-pixels"),
        ([*GENERATE, "stray"], "stray"),
    ],
)
def test_sampling_refuses_bad_input_before_a_model_is_loaded(folder, capsys, monkeypatch, argv, message):
    monkeypatch.setattr(sample, "_load", lambda name: pytest.fail("loaded a model"))
    before = sorted(folder.rglob("*"))
    assert message in error_of(capsys, sample.main, argv)
    assert sorted(folder.rglob("*")) == before


def test_a_missing_predecessor_is_named_with_the_configuration_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "start_jax", lambda: None)
    known = ["--config=quickstart_sr_align", f"--workdir={tmp_path / 'quickstart_sr_align'}"]
    with pytest.raises(
        UserError, match="none in .*quickstart_sr_diffusion; .*configs/quickstart_sr_diffusion.py' makes"
    ):
        train.main(known)
    with pytest.raises(UserError, match=r"set --config.init_from=DIR\.$"):
        train.main([known[0], f"--workdir={tmp_path / 'mine_align'}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "Give --config"),
        (["--config=nowhere.py"], "no configuration nowhere.py"),
        (["--config=quickstart_sr_frist_stage"], "did you mean quickstart_sr_first_stage"),
        (["--config=without.py"], "no function get_config"),
        (["--config=text.png"], "not a Python file"),
        (["--config=wrong.py"], "returned int"),
        (["--config=quickstart_sr_first_stage", "--config.foo=1"], "no configuration field --config.foo"),
        (["--config=quickstart_sr_first_stage", "--config.train.step=1"], "did you mean train.steps"),
        (["--config=quickstart_sr_first_stage", "--config.steps=1"], "model.sampling.steps or train.steps"),
        (["--config=quickstart_sr_first_stage", "--config.train=1"], "is a section"),
        (["--config=quickstart_sr_first_stage", "--config.train.steps=many"], "--config.train.steps=many"),
        (["--config=quickstart_sr_first_stage", "--config.train.steps=1.5"], "--config.train.steps=1.5"),
        (["--config=quickstart_sr_first_stage", "--config.data.flip=maybe"], "--config.data.flip=maybe"),
        (["--config=quickstart_sr_first_stage", "--config.seed"], "seed"),
        (["--config=quickstart_sr_first_stage", "--wrokdir=x"], "did you mean workdir"),
        (["--config=quickstart_sr_first_stage", "stray"], "stray"),
        (["--config=quickstart_sr_first_stage", "--workdir=text.png"], "--workdir=text.png is a file"),
    ],
)
def test_training_refuses_bad_flags(folder, capsys, argv, message):
    before = sorted(folder.rglob("*"))
    assert message in error_of(capsys, train.main, argv)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "argv, message",
    [
        (["paint"], "no command 'paint'"),
        (["upscal"], "did you mean upscale"),
        (["upscale", "--task=upscale"], "no flag --task"),
        (["generate", "--input=photo.png"], "no flag --input"),
        (["export", "--output=x"], "Give both --run"),
        (["export", "--run=nowhere", "--output=x"], "--run=nowhere"),
        (["quickstart", "--minutes=0"], "--minutes=0"),
        (["quickstart", "--scale=nan"], "--scale=nan"),
    ],
)
def test_commands_refuse_bad_flags(folder, capsys, argv, message):
    assert message in error_of(capsys, main.dispatch, argv)


@pytest.mark.parametrize(
    "command", [train.main, sample.main, evaluate.main, export.main, run_quickstart.main, main.dispatch]
)
def test_help_explains_and_exits_0(capsys, command):
    assert program.run(command, ["--help"]) == 0
    captured = capsys.readouterr()
    assert "Usage:" in captured.out and captured.err == ""


def test_help_lists_every_field_of_the_configuration_and_its_value(capsys, folder):
    assert program.run(train.main, ["--config=quickstart_sr_align", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--config.{name}=" in out for name in config_flag.fields(get_base_config()))
    assert "--config.stage='align'" in out


@pytest.mark.parametrize("script", ["run_train.py", "run_sample.py", "run_eval.py", "run_quickstart.py"])
def test_scripts_answer_without_jax(script, tmp_path):
    code = "import runpy\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\nfinally: print('jax' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", "import sys; sys.argv.pop(0)\n" + code, str(ROOT / script), "--help"]
    done = run(argv, cwd=tmp_path, env=env)
    assert done.returncode == 0 and done.stdout.endswith("False\n"), done.stdout + done.stderr


def test_keyboard_interrupt_exits_130_and_bugs_keep_their_traceback(capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    def broken(argv):
        raise ValueError("a bug")

    assert program.run(interrupted, []) == 130
    with pytest.raises(ValueError, match="a bug"):
        program.run(broken, [])


def test_interrupting_a_command_ends_it_at_once_and_leaves_nothing(folder):
    """The program that runs on the device cannot be ended, so the process does not wait for it."""
    code = (
        "import pathlib, signal, threading; from arbiscale_jax.cli import program\n"
        "from arbiscale_jax.runtime.whole_files import replacing\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background inherits SIG_IGN\n"
        "def work():\n"
        "    with replacing(pathlib.Path('half.png')):\n"
        "        print('begun', flush=True)\n"
        "        threading.Event().wait(60)\n"
        "program.run(lambda argv: program.interruptible(work), [])\n"
    )
    argv, env = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and err.strip() == "interrupted"
    assert not [path for path in folder.iterdir() if "half" in path.name]


def test_a_command_in_a_thread_raises_what_its_work_raises():
    def work():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        program.interruptible(work)


def test_overrides_reach_training_with_the_types_of_the_configuration(folder, monkeypatch):
    import arbiscale_jax.training

    calls = []
    monkeypatch.setattr(program, "start_jax", lambda: None)
    monkeypatch.setattr(arbiscale_jax.training, "train", lambda config, workdir: calls.append((config, workdir)))
    argv = ["--config.train.steps=7", "--config", "configs/quickstart_sr_align.py", "--config.train.minutes=30"]
    argv += ["--config.model.unet.attention_rates=4,2", "--noconfig.data.flip", "--config.data.root=a=b"]
    assert program.run(train.main, argv) == 0
    config, workdir = calls[0]
    assert workdir == Path("runs/quickstart_sr_align") and config.stage == "align"
    assert config.train.steps == 7 and config.train.minutes == 30.0 and isinstance(config.train.minutes, float)
    assert config.model.unet.attention_rates == (4, 2) and config.data.flip is False and config.data.root == "a=b"

    (folder / "mine.py").write_text(
        "from arbiscale_jax.experiments import get_base_config\n"
        "def get_config(text='none'):\n    config = get_base_config()\n    config.data.root = text\n    return config\n"
    )
    assert program.run(train.main, ["--config=mine.py:some", "--workdir=w"]) == 0
    assert calls[1][0].data.root == "some" and calls[1][1] == Path("w")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_every_configuration_is_locked_and_has_the_fields_of_the_base(name):
    config = config_flag.load(name)
    assert config.is_locked
    names = [set(config_flag.fields(one)) for one in (config, get_base_config())]
    if config.stage == "baseline":  # whose `model` has fields of its own
        names = [{field for field in some if not field.startswith("model.")} for some in names]
    assert names[0] == names[1]


def test_upscale_writes_images_of_the_right_size_under_their_names(folder, monkeypatch, capsys):
    monkeypatch.setattr(sample, "_load", lambda opts: FakeModel())
    argv = [*UPSCALE, "--input", "photo.png", "photo.jpg", "--scale=3.7", "--max_pixels=2400"]
    assert program.run(sample.main, argv) == 0
    assert pixels("out/photo.png_x3.7.png").shape[:2] == (148, 222)
    argv = ["upscale", "--model=m", "--output=out2", "--input=photo.png", "--size=10x20", "--samples=2"]
    assert program.run(main.dispatch, [*argv, "--seed=5", "--steps=3"]) == 0
    assert sorted(p.name for p in Path("out2").iterdir()) == sorted(
        ["journal.jsonl", "photo_10x20_0.png", "photo_10x20_1.png", "sample.json"]
    )
    assert pixels("out2/photo_10x20_1.png")[0, 0].tolist() == [6, 6, 6]
    resolved = json.loads(Path("out2/sample.json").read_text())
    assert resolved["steps"] == 3 and resolved["sampler"] == "ddim"
    assert resolved["samples"] == 2 and resolved["scale"] is None
    assert "wrote out2/photo_10x20_0.png" in capsys.readouterr().out
    monkeypatch.setattr(row_saving, "WHOLE_PIXELS", 10)  # as images that are larger than memory
    assert program.run(sample.main, [*GOOD, "--scale=1000", "--box=7,8,20,30", "--seed=9"]) == 0
    window = pixels("out/photo_x1000_at_7_8_20_30.png")
    assert window.shape == (20, 30, 3) and (window == 9).all()


def test_generate_renders_each_latent_at_every_size(folder, monkeypatch):
    monkeypatch.setattr(sample, "_load", lambda opts: FakeModel())
    assert program.run(sample.main, [*GENERATE, "--num=2", "--sizes=12,16x20"]) == 0
    names = ["sample_0_000_12x12.png", "sample_0_000_16x20.png", "sample_0_001_12x12.png", "sample_0_001_16x20.png"]
    assert sorted(p.name for p in Path("out").glob("*.png")) == names
    assert pixels("out/sample_0_001_16x20.png").shape[:2] == (16, 20)
    assert program.run(sample.main, [*GENERATE, "--num=1", "--output=default"]) == 0
    assert pixels("default/sample_0_000_64x64.png").shape[:2] == (64, 64)


def test_write_image_is_complete_or_not_at_all(tmp_path, monkeypatch):
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    images.save(tmp_path / "new" / "a.png", image)
    assert (read_image(tmp_path / "new" / "a.png") == image).all()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]

    def full_disk(self, content):
        with open(self, "wb") as f:
            f.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        images.save(tmp_path / "new" / "b.png", image)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_an_output_larger_than_the_disk_is_refused(tmp_path):
    with pytest.raises(UserError, match="GB free; make room"):
        files.check_output_folder(tmp_path / "not" / "yet", 10**18)
    files.check_output_folder(tmp_path / "not" / "yet", 10)
    assert not (tmp_path / "not").exists()


def test_sizes_are_height_then_width():
    assert sizes.parse_sizes("128, 160,192x256", "--sizes") == [(128, 128), (160, 160), (192, 256)]
    assert sizes.scaled((100, 150), 3.7, "photo.png") == (370, 555)


def test_the_compilation_cache_goes_where_the_environment_says(tmp_path, monkeypatch):
    import jax

    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("ARBISCALE_CACHE", str(tmp_path / "cache"))
    try:
        program.start_jax()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache") and (tmp_path / "cache").is_dir()
        assert flags.FLAGS.is_parsed()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
