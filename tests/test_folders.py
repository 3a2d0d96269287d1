"""Folders of pictures: what is found, how results are called, what is left out, and how a stopped command goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from image_files import encoded, pixels, write
from PIL import Image

from arbiscale_jax.artifacts.storage import WEIGHTS
from arbiscale_jax.cli import inputs, main, overlap, program, result_names, sample, sample_flags, sizes, upscaling
from arbiscale_jax.cli.inputs import Found
from arbiscale_jax.cli.journal import Entry, Journal
from arbiscale_jax.runtime import whole_files
from arbiscale_jax.runtime.screen import printable

ROOT = Path(__file__).parent.parent
QUICK = ("--scale=1.5", "--steps=1", "--refine=0")


class Stub:
    """Renders the seed, plus ten times the answer, and records what it was asked for."""

    def __init__(self):
        self.groups = []  # the shapes of each call's pictures

    def upscale_each(self, images, sizes, samples, *, seed, progress, box, **sampling):
        self.groups.append([image.shape[:2] for image in images])
        progress(1, 1)
        for number, size in enumerate(sizes):
            for i in range(samples):
                yield number, i, iter([np.full((*(box[2:] if box else size), 3), seed + 10 * i, np.uint8)])

    def generate_each(self, num, wanted, *, seed, progress, **sampling):
        self.groups.append(sorted(wanted))
        progress(1, 1)
        yield sorted(wanted), np.array(sorted(wanted)) + seed

    def viewer(self, z):
        return SimpleNamespace(rows=lambda size: iter([np.full((*size, 3), z, np.uint8)]))


@pytest.fixture
def stub(stand_in):
    return stand_in(Stub())


def upscale(*argv: str) -> int:
    return program.run(main.dispatch, ["upscale", "--model=m", "--output=out", *argv])


def made(folder: str = "out", suffix: str = ".png") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob(f"*{suffix}"))


def record(folder: str = "out") -> dict:
    return json.loads((Path(folder) / "sample.json").read_text())


def error_of(capsys, *argv: str) -> str:
    capsys.readouterr()
    assert upscale(*argv) == 2
    return capsys.readouterr().err.splitlines()[-1]


# --- what is found ---


def test_results_beside_their_inputs_are_no_inputs_when_a_command_is_given_again(stub, capsys):
    write(Path("in"), ["p.png", "q.png"])
    assert upscale("--output=in", *sorted(map(str, Path("in").glob("*.png")))) == 0
    assert made("in") == ["p.png", "p_x4.png", "q.png", "q_x4.png"]
    everything = sorted(map(str, Path("in").glob("*.png")))
    assert upscale("--output=in", "--skip-existing", *everything) == 0
    assert "0 written, 2 there already" in capsys.readouterr().out
    assert upscale("--output=in", "--overwrite", *everything) == 0
    assert made("in") == ["p.png", "p_x4.png", "q.png", "q_x4.png"]
    assert upscale("--output=in", "in/p_x4.png") == 0  # named by itself, it is an input
    assert made("in") == ["p.png", "p_x4.png", "p_x4_x4.png", "q.png", "q_x4.png"]


def test_a_folders_tree_is_kept_and_hidden_files_are_no_input(stub, capsys):
    write(Path("in"), ["x.png", "a/y.jpg", "a/b/z.png", ".hidden.png", ".git/w.png", "a/notes.txt.png"])
    Path("in/readme.txt").write_text("no picture")
    assert upscale("--input=in") == 0
    assert made() == ["a/b/z_x4.png", "a/notes.txt_x4.png", "a/y_x4.png", "x_x4.png"]
    assert record()["inputs"] == ["in/x.png", "in/a/notes.txt.png", "in/a/y.jpg", "in/a/b/z.png"]
    assert record()["outputs"] == ["x_x4.png", "a/notes.txt_x4.png", "a/y_x4.png", "a/b/z_x4.png"]
    assert record()["output_sizes"] == [[80, 96]] * 4
    assert re.search(r"4 written, 0 there already, 0 left out; \d+\.\d s, 0\.03 megapixels\n$", capsys.readouterr().out)


def test_symbolic_links_are_followed_once(tmp_path):
    write(tmp_path, ["in/b/y.png", "elsewhere/z.png", "elsewhere/deep/w.png"])
    for link, target in (("in/a", "b"), ("in/b/up", ".."), ("in/self", "self"), ("in/e", "../elsewhere")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "in/linked.png").symlink_to("b/y.png")
    (tmp_path / "in/broken.png").symlink_to("nowhere.png")
    found = inputs.find([str(tmp_path / "in")], {".png"}, {".mpg"}, tmp_path / "out")
    assert [str(one.path.relative_to(tmp_path / "in")) for one in found.pictures] == [
        *("linked.png", "b/y.png", "e/z.png", "e/deep/w.png"),  # a leads to b, which is searched under its own path
    ]
    assert [one.folder for one in found.pictures] == ["", "b", "e", "e/deep"]
    assert len(found.left_out) == 1 and "broken.png is not a file" in found.left_out[0]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    write(tmp_path, ["in/a/x.png", "in/b/y.png"])
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = inputs.find([str(tmp_path / "in")], {".png"}, {".mpg"}, tmp_path / "out")
    assert [one.path.name for one in found.pictures] == ["y.png"]
    assert found.left_out == [f"{tmp_path / 'in/a'} cannot be opened (Permission denied)"]


def test_results_are_no_inputs_where_they_lie_among_them(stub):
    write(Path("in"), ["x.png", "a/y.png"])
    for _ in range(2):
        assert upscale("--input=in", "--output=in/out") == 0
        assert made("in/out") == ["a/y_x4.png", "x_x4.png"]
    shutil.rmtree("in/out")
    for _ in range(2):
        assert upscale("--input=in", "--output=in", "--scale=2") == 0
        assert made("in") == ["a/y.png", "a/y_x2.png", "x.png", "x_x2.png"]
    assert upscale("--input=in/x_x2.png", "--output=in", "--scale=2") == 0  # given by its own name it is one
    assert "x_x2_x2.png" in made("in")


def test_a_file_that_is_given_twice_counts_once(stub):
    write(Path("in"), ["x.png", "y.png"])
    assert upscale("--input=in", "in/x.png", "./in/../in/y.png") == 0
    assert made() == ["x_x4.png", "y_x4.png"]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.png", b"-dash.png", b"new\nline.png", b"[red].png", b"\x1b[31m.png", b"a" * 251 + b".png"]
)
def test_any_name_that_the_system_allows(stub, name, capsys):
    Path("in").mkdir()
    path = Path("in") / os.fsdecode(name)
    path.write_bytes(encoded(0))
    assert upscale("--input=in") == 0
    (found,) = record()["outputs"]
    assert (Path("out") / found).is_file() and len(os.fsencode(found)) <= 255
    assert record()["inputs"] == [str(path)]
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 and "\x1b" not in out
    path.write_bytes(b"no picture")
    assert "is not an image" in error_of(capsys, "--input=in", "--output=other")
    assert upscale("--input=in", "--output=other") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_what_is_printed_has_no_control_characters():
    assert printable("a\nb\x1b[0m\udcff写.png") == "a\\nb\\x1b[0m\\udcff写.png"


def test_names_that_stdout_cannot_encode(tmp_path):
    code = "from arbiscale_jax.cli import program; program.run(lambda argv: print('\\u5199'), [])"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60)
    assert done.stdout == b"\\u5199\n", done.stderr


# --- how results are called ---


def stems(*paths: str) -> list[str]:
    return result_names.unique_stems([Found(Path(path), str(Path(path).parent), False) for path in paths])


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.png", "b.jpg"], ["a", "b"]),
        (["a.png", "a.jpg"], ["a.png", "a.jpg"]),
        (["a.png", "a.jpg", "a.png.png"], ["a.png", "a.jpg", "a.png.png"]),
        (["b.tif", "b.png", "b.tif.webp", "b.png.jpg"], ["b.tif", "b.png", "b.tif.webp", "b.png.jpg"]),
        (["A.png", "a.jpg"], ["A.png", "a.jpg"]),
        (["A.png", "a.png"], ["A.png", "a.png-2"]),
        (["A.png", "a.png", "a.png-2.jpg"], ["A.png", "a.png-3", "a.png-2"]),
        (["\u00e9.png", "e\u0301.png"], ["\u00e9.png", "e\u0301.png-2"]),
        (["one/a.png", "two/a.png"], ["a", "a"]),
    ],
)
def test_every_picture_has_a_name_of_its_own(names, expected):
    assert stems(*names) == expected


def test_pictures_of_one_name_from_two_folders_are_refused(stub, capsys):
    write(Path(), ["one/a.png", "two/a.png"])
    assert "2 inputs are called a.png, one/a.png and two/a.png" in error_of(capsys, "--input=one", "two")
    assert not Path("out").exists()


def test_names_follow_the_pattern(stub):
    write(Path("in"), ["a.jpg"])
    pattern = "{stem}-{ext}-{size}-{height}-{width}-{index:03d}-{seed}-{model}-{scale:.2f}-{box}"
    assert upscale("--input=in", f"--name={pattern}", "--samples=2", "--seed=7", "--scale=3.7", "--box=1,2,3,4") == 0
    assert made() == [f"a-jpg-74x89-74-89-00{i}-7-m-3.70-1_2_3_4.png" for i in (0, 1)]
    assert upscale("--input=in", "--name={stem}_big.png", "--output=other") == 0
    assert made("other") == ["a_big.png"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--name={stem}{sead}"], "unknown field {sead}; the fields are {stem}, {ext}, {scale}"),
        (["--name={stem.__class__}"], "unknown field {stem.__class__}"),
        (["--name={}"], "unknown field {}"),
        (["--name={stem"], "is no pattern"),
        (["--name={stem!r}"], "a format that is not taken"),
        (["--name={stem:>999999999}"], "a format that is not taken"),
        (["--name={stem:d}"], "{stem:d} does not fit 'a'"),
        (["--name=x/{stem}"], "names no file"),
        (["--name="], "names no file"),
        (["--name={box}"], "is empty for an input"),
        (["--name=x"], "in/a.png and in/b.png would both become out/x.png; add {stem}"),
        (["--name={stem}", "--samples=2"], "Several results of in/a.png would be called out/a.png; add {index}"),
        (["--name=" + "x" * 252], "makes a name of more than 255 bytes"),
        (["--name={stem}", "--output=in"], "in/a.png would replace an input"),
        (["--output=in/a.png/out"], "in/a.png is a file"),
    ],
)
def test_names_that_cannot_be_are_refused_before_any_work(stub, capsys, argv, message):
    write(Path("in"), ["a.png", "b.png"])
    assert message in error_of(capsys, "--input=in", *argv)
    assert not Path("out").exists() and stub.groups == []


def test_a_result_is_no_folder_of_results(stub, capsys):
    write(Path("in"), ["a.png", "A_x2.png/b.png"])
    assert "out/A_x2.png would be both a result and a folder" in error_of(capsys, "--input=in", "--scale=2")
    Path("out/a_x3.png").mkdir(parents=True)
    assert "out/a_x3.png cannot be written, since there is a folder" in error_of(capsys, "--input=in", "--scale=3")


def test_long_names_are_cut_and_stay_different():
    fields = {"stem": "写真" * 41 + "aaaa", "index": 3}
    first = result_names.format_name("{stem}_{index}", fields, ".png")
    second = result_names.format_name("{stem}_{index}", fields | {"stem": "写真" * 41 + "aaab"}, ".png")
    assert first != second and re.fullmatch(r"(写真)+写?~[0-9a-f]{8}_3\.png", first)
    assert 250 < len(os.fsencode(first)) <= 255
    twice = result_names.format_name("{stem}{stem}", {"stem": "b" * 200}, ".png")
    assert len(twice) == 255 - 1 and twice.count("~") == 2  # an odd byte is left


def test_sizes_keep_the_proportion():
    def target(**given):
        return sizes.parse_target({"scale": None, "size": None, "long-side": None} | given)

    assert target(size="900").of((200, 300), "") == (900, 1350)
    assert target(size="900").of((300, 200), "") == (1350, 900)
    assert target(size="30x40").of((300, 200), "") == (30, 40)
    assert target(**{"long-side": 900}).of((200, 300), "") == (600, 900)
    assert target(**{"long-side": 1}).of((200, 300), "") == (1, 1)
    assert target().of((2, 3), "") == (8, 12) and target(scale=1.5).of((2, 3), "") == (3, 4)


def test_a_side_alone_is_named_by_the_size_of_the_result(stub):
    write(Path("in"), ["a.png"])
    assert upscale("--input=in", "--size=40") == 0 and upscale("--input=in", "--long-side=60") == 0
    assert made() == ["a_40x48.png", "a_50x60.png"] and pixels("out/a_50x60.png").shape == (50, 60, 3)


def test_output_names_one_result(stub, capsys):
    write(Path("in"), ["a.png", "b.png"])
    assert upscale("--input=in/a.png", "--output=new/big.png") == 0
    assert sorted(path.name for path in Path("new").iterdir()) == ["big.json", "big.png"]
    assert json.loads(Path("new/big.json").read_text())["outputs"] == ["big.png"]
    assert "names one result, but 2 are asked for" in error_of(capsys, "--input=in", "--output=new/c.png")
    assert "names one result, but 2" in error_of(capsys, "--input=in/a.png", "--samples=2", "--output=new/c.png")
    assert "new/big.png exists already" in error_of(capsys, "--input=in/b.png", "--output=new/big.png")
    assert upscale("--input=in/b.png", "--output=new/big.png", "--overwrite", "--seed=3") == 0
    assert pixels("new/big.png")[0, 0, 0] == 3
    Path("new/mine.json").write_text('{"caption": "mine"}')
    assert "new/mine.json, which would record" in error_of(capsys, "--input=in/a.png", "--output=new/mine.png")
    Path("folder.png").mkdir()
    assert upscale("--input=in/a.png", "--output=folder.png") == 0 and made("folder.png") == ["a_x4.png"]


# --- what is left out ---


def test_files_that_cannot_be_read_are_left_out_named_and_counted(stub, capsys):
    write(Path("in"), ["a.png", "sub/z.png"])
    Path("in/empty.png").write_bytes(b"")
    Path("in/cut.png").write_bytes(encoded(0)[:60])
    Path("in/sub/text.jpg").write_text("no picture")
    Image.new("RGB", (1, 1)).save("in/dot.png")
    Image.new("RGB", (60, 60)).save("in/large.png")
    assert upscale("--input=in", "--max-output-pixels=10000") == 1
    assert made() == ["a_x4.png", "sub/z_x4.png"]
    captured = capsys.readouterr()
    for name in ("empty.png is empty", "cut.png", "text.jpg is not an image", "dot.png has 1 x 1", "240 x 240"):
        assert any(line.startswith("left out: ") and name in line for line in captured.err.splitlines()), name
    assert "2 written, 0 there already, 5 left out" in captured.out
    assert len(record()["left_out"]) == 5 and "in/cut.png" in record()["left_out"][0]
    assert upscale("--input=in", "--max-output-pixels=10000") == 1  # nothing is computed again, and all are named again
    assert "0 written, 2 there already, 5 left out" in capsys.readouterr().out and len(stub.groups) == 1


def test_if_nothing_can_be_read_the_command_is_refused(stub, capsys):
    Path("in").mkdir()
    for name in ("a.png", "b.png"):
        (Path("in") / name).write_text("no picture")
    assert "in/a.png is not an image" in error_of(capsys, "--input=in/a.png")
    assert "None of the 2 inputs can be upscaled; the first: in/a.png is not" in error_of(capsys, "--input=in")
    assert not Path("out").exists()


def test_a_file_that_vanishes_while_the_command_runs_is_left_out(stub, monkeypatch, capsys):
    from arbiscale_jax.cli import planning

    write(Path("in"), ["a.png", "b.png", "c.png"])
    monkeypatch.setattr(planning, "KEPT_BYTES", 0)  # pictures are read again

    def load(opts):
        Path("in/b.png").unlink()
        Path("in/c.png").write_bytes(encoded(0, height=8, width=8))
        return stub

    monkeypatch.setattr(sample, "_load", load)
    assert upscale("--input=in") == 1
    assert made() == ["a_x4.png"] and record()["outputs"] == ["a_x4.png"]
    err = capsys.readouterr().err
    assert "left out: There is no image file in/b.png" in err and "in/c.png was changed while the command ran" in err


def test_what_is_dropped_is_said(stub, capsys):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "b.tif"):
        frames[0].save(name, save_all=True, append_images=frames[1:])
    Image.new("RGBA", (8, 8)).save("c.png")
    Path("in").mkdir()
    Image.new("RGB", (8, 8)).save("in/d.png")
    for name in ("clip.MPG", "shot.heic", "notes.txt"):
        Path("in", name).write_bytes(b"something")
    assert upscale("--input=a.gif", "b.tif", "c.png", "in", "--first-frame", "--format=jpg") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: passed over, since their formats are not read: clip.MPG, shot.heic",
        "note: a.gif: it has 3 frames, of which the first alone is upscaled",
        "note: b.tif: it has 3 pages, of which the first alone is upscaled",
        "note: c.png: its transparency is lost, since JPEG has none; it is shown on white",
    ]


# --- what is there already, and commands that were stopped ---


def test_results_are_not_replaced_unasked(stub, capsys):
    write(Path("in"), ["a.png", "b.png", "c.png"])
    Path("out").mkdir()
    for name in ("a", "c"):
        Path(f"out/{name}_x4.png").write_bytes(b"mine")
    assert "out/a_x4.png exists already, and 1 more of the results are there already; give --overwrite" in error_of(
        capsys, "--input=in"
    )
    assert made() == ["a_x4.png", "c_x4.png"] and stub.groups == []
    assert upscale("--input=in", "--skip-existing") == 0
    assert "1 written, 2 there already" in capsys.readouterr().out
    assert Path("out/a_x4.png").read_bytes() == b"mine" and record()["outputs"] == ["b_x4.png"]
    assert "out/a_x4.png exists already" in error_of(capsys, "--input=in")
    assert upscale("--input=in", "--overwrite") == 0
    assert "2 written, 1 there already" in capsys.readouterr().out  # b's is what would be made
    assert Path("out/a_x4.png").read_bytes() != b"mine"
    assert record()["outputs"] == ["a_x4.png", "b_x4.png", "c_x4.png"]
    assert "exclude each other" in error_of(capsys, "--input=in", "--overwrite", "--skip-existing")


def test_other_options_are_named_and_replace_only_if_asked(stub, capsys):
    write(Path("in"), ["a.png", "b.png"])
    assert upscale("--input=in", "--seed=1") == 0
    error = error_of(capsys, "--input=in", "--seed=2", "--eta=0.5")
    assert "out/a_x4.png was made with other options (--seed was 1 and is 2, --eta was 0.0 and is 0.5)" in error
    (Path("m") / WEIGHTS).write_bytes(b"other weights")
    assert "(the model was m, " in error_of(capsys, "--input=in", "--seed=1")
    (Path("m") / WEIGHTS).write_bytes(b"weights")
    os.utime("in/b.png", ns=(0, 0))
    assert "out/b_x4.png was made from another input or another version of it" in error_of(
        capsys, "--input=in", "--seed=1"
    )
    with open("out/a_x4.png", "ab") as file:
        file.write(b"edited")
    assert "out/a_x4.png was changed after it had been made, and 1 more" in error_of(capsys, "--input=in", "--seed=1")
    assert upscale("--input=in", "--seed=2", "--overwrite") == 0
    assert pixels("out/a_x4.png")[0, 0, 0] == 2 and record()["seed"] == 2


def test_results_of_other_names_are_added_to_a_folder(stub):
    write(Path("in"), ["a.png", "b.png"])
    assert upscale("--input=in/a.png", "--scale=2") == upscale("--input=in", "--scale=3") == 0
    assert upscale("--input=in/b.png", "--scale=2") == 0
    assert made() == ["a_x2.png", "a_x3.png", "b_x2.png", "b_x3.png"]
    assert record()["outputs"] == ["b_x2.png", "a_x2.png"]  # with the last options, also those of earlier commands
    assert record()["inputs"] == ["in/b.png", str(Path("in/a.png").absolute())]


class Stopped(Exception):
    """Stands for a process that was killed."""


def stop_after(monkeypatch, number: int) -> None:
    """Makes the command end as if it were killed, in the middle of writing result `number`."""
    from arbiscale_jax.cli import picture_files

    write_it, left = picture_files.write, iter(range(number))

    def stopping(path, *args):
        if next(left, None) is None:
            whole_files.temporary(path).write_bytes(b"half")
            raise Stopped
        write_it(path, *args)

    monkeypatch.setattr(picture_files, "write", stopping)


def test_a_command_that_was_stopped_goes_on(stub, monkeypatch, capsys):
    write(Path("in"), [f"{name}.png" for name in "abcdefg"])
    monkeypatch.setattr(upscaling, "GROUP_ON_CPU", (10**6, 3))
    monkeypatch.setattr(upscaling, "writing", partial(overlap.writing, 1))
    for number, groups in ((4, 2), (1, 2)):  # the next picture may be computed before it is known that one failed
        with monkeypatch.context() as patch:
            stop_after(patch, number)
            stub.groups.clear()
            with pytest.raises(Stopped):
                upscale("--input=in")
            assert len(stub.groups) == groups and len(list(Path("out").glob(".*.part"))) == 1
    with open("out/journal.jsonl", "a") as file:
        file.write('{"done": "g_x4.png", "by')  # cut off by the kill
    stub.groups.clear()
    capsys.readouterr()
    assert upscale("--input=in") == 0
    assert "2 written, 5 there already" in capsys.readouterr().out
    assert [len(group) for group in stub.groups] == [3, 1]  # d, e, f as at first, though d and e are there; g
    assert list(Path("out").glob(".*.part")) == []
    assert made() == [f"{name}_x4.png" for name in "abcdefg"] and len(record()["outputs"]) == 7

    write(Path("in"), ["b2.png"])
    stub.groups.clear()
    assert upscale("--input=in") == 0 and [len(group) for group in stub.groups] == [1]  # the others are finished
    assert len(record()["outputs"]) == 8
    for line in Path("out/journal.jsonl").read_text().splitlines():
        assert line.startswith("{")


def test_a_result_that_was_begun_is_made_again(stub, monkeypatch):
    """The process may end after the old result was allowed to go, and before or after the new one had its name."""
    write(Path("in"), ["a.png"])
    Path("out").mkdir()
    Path("out/a_x4.png").write_bytes(b"old")
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(Stopped):
            upscale("--input=in", "--overwrite")
    assert Path("out/a_x4.png").read_bytes() == b"old"
    assert upscale("--input=in") == 0 and pixels("out/a_x4.png").shape == (80, 96, 3)


def test_a_journal_of_something_else_is_ignored(tmp_path):
    lines = ["[]", "1", "null", '{"done": 1}', '{"options": "x", "values": 3}', '{"done": "a.png", "by": "k"}', "\0{"]
    lines += ['{"done": "b.png", "by": "k", "input": 3, "answer": 0, "shape": [1, 2], "size": [3, 4], "bytes": 5}']
    (tmp_path / "journal.jsonl").write_text("\n".join(lines))
    journal = Journal(tmp_path, {"--seed": 1})
    assert journal.entries == {}
    entry = Entry(journal.key, ("/in/\udcff", 1, 2), 0, (2, 3), (4, 6), 99)
    journal.start()
    journal.begin("c\n.png", entry)
    journal.done("\udcff.png", entry)
    again = Journal(tmp_path, {"--seed": 1})
    assert again.entries == {"c\n.png": entry._replace(written=-1), "\udcff.png": entry}
    again.end()
    assert Journal(tmp_path, {"--seed": 1}).entries["\udcff.png"].settled
    assert Journal(tmp_path, {"--seed": 2}).other_options(journal.key) == "--seed was 1 and is 2"


def test_generating_names_and_keeps_results_too(stub, capsys):
    def generate(*argv):
        return program.run(main.dispatch, ["generate", "--model=g", *argv])

    assert generate("--num=2", "--sizes=8,8x12") == 0
    assert made() == [f"sample_0_00{i}_{size}.png" for i in (0, 1) for size in ("8x12", "8x8")]
    assert generate("--num=3", "--sizes=8") == 0
    assert "1 written, 2 there already" in capsys.readouterr().out and stub.groups == [[0, 1], [2]]
    assert generate("--num=3", "--sizes=8") == 0 and stub.groups == [[0, 1], [2]]
    assert generate("--num=1", "--sizes=8", "--steps=3") == 2
    assert "sample_0_000_8x8.png was made with other options (--steps was " in capsys.readouterr().err
    assert generate("--num=1", "--sizes=8", "--seed=2") == 0 and "sample_2_000_8x8.png" in made()
    assert generate("--num=1", "--sizes=8", "--seed=1", "--name=s{seed}_{index}_{width}") == 0
    assert (pixels("out/s1_0_8.png") == 1).all()
    assert generate("--num=1", "--sizes=8", "--output=one.png") == 0 and Path("one.json").is_file()
    for argv, message in (
        (["--num=2", "--sizes=8", "--output=two.png"], "names one result, but 2"),
        (["--num=1", "--sizes=8,8", "--output=new"], "Several results would be called new/sample_0_000_8x8.png"),
        (["--name={ext}"], "unknown field {ext}"),
    ):
        assert generate(*argv) == 2 and message in capsys.readouterr().err


def test_the_bar_counts_the_work_that_is_left(stub, monkeypatch):
    """Large pictures count more than small ones, and a bar of several groups reaches its end."""
    bars = []

    @contextmanager
    def bar(total, description="", **options):
        bars.append([total, 0.0])

        def advance(steps, description=None, total=None):
            bars[-1][1] += steps

        yield advance

    monkeypatch.setattr(upscaling, "counted_progress", bar)
    monkeypatch.setattr(upscaling, "GROUP_ON_CPU", (10**6, 2))
    write(Path("in"), ["a.png"])
    write(Path("in"), ["b.png", "c.png", "d.png"], height=40, width=40)
    assert upscale("--input=in/a.png", "--samples=2", "--scale=2") == 0
    assert upscale("--input=in", "--samples=2", "--scale=2") == 0
    work = [2 * (16 + 4) * pixels for pixels in (20 * 24, 3 * 40 * 40)]
    assert [total for total, _ in bars] == work
    np.testing.assert_allclose([done for _, done in bars], work)


# --- what is refused before anything is read ---


@pytest.mark.parametrize(
    "argv, message",
    [
        (["upscale", "--model=g"], "--model=g does not upscale"),
        (["generate", "--model=m"], "--model=m does not generate"),
        (["upscale", "--model=m", "--steps=5000"], "5000"),
        (["generate", "--model=g", "--steps=5000"], "5000"),
        (["upscale", "--model=m", "--restore=0.5"], "is not told how much to restore"),
        (["upscale", "--model=m", "--sampler=dpmpp", "--eta=1"], "eta must be 0"),
        (["upscale", "--model=nowhere"], "There is no model 'nowhere'"),
        (["upscale", "--model=empty"], "has neither weights nor a checkpoint"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_a_picture_is_read(stub, monkeypatch, capsys, argv, message):
    from arbiscale_jax.cli import picture_files

    write(Path("in"), ["a.png"])
    shutil.copytree("m", "empty")
    (Path("empty") / WEIGHTS).unlink()
    monkeypatch.setattr(picture_files, "read", lambda *args: pytest.fail("read a picture"))
    monkeypatch.setattr(sample, "_load", lambda opts: pytest.fail("loaded a model"))
    assert program.run(main.dispatch, [*argv, *(["--input=in"] if argv[0] == "upscale" else [])]) == 2
    assert message in capsys.readouterr().err and not Path("out").exists()


def test_the_disk_is_checked_for_what_is_left_to_do(stub, monkeypatch, capsys):
    write(Path("in"), ["a.png", "b.png"])
    assert upscale("--input=in/a.png") == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 3 * 80 * 96))
    assert upscale("--input=in") == 0  # one result is left, and there is room for one
    assert "GB free; make room" in error_of(capsys, "--input=in", "--scale=5")


# --- temporary files and paths ---


def test_leftovers_of_dead_processes_are_deleted(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(60)
    mine = whole_files.temporary(tmp_path / "a.png")
    machine, other = mine.name.split(".")[2], "0" * 6
    dead, alive = (mine.name.replace(f".{os.getpid()}.", f".{pid}.") for pid in (process.pid, os.getppid()))
    foreign, old = dead.replace(machine, other), dead.replace(machine, "1" * 6)
    for name in (mine.name, dead, alive, foreign, old, ".mine.part", "a.png"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / old, (0, 0))
    with whole_files.replacing(tmp_path / "b.png") as part:
        whole_files.remove_leftovers(tmp_path)
        assert part.exists()
    assert {path.name for path in tmp_path.iterdir()} == {alive, foreign, ".mine.part", "a.png", "b.png"}
    whole_files.remove_leftovers(tmp_path / "nowhere")


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("x" * 255, "写" * 85):
        with whole_files.replacing(tmp_path / name) as part:
            assert len(os.fsencode(part.name)) <= 40
        assert (tmp_path / name).is_file()


def test_home_is_expanded_in_every_path_flag(tmp_path, monkeypatch):
    from arbiscale_jax.cli import config_flag

    monkeypatch.setenv("HOME", str(tmp_path))
    f = sample_flags.define(None)
    program.parse(f, ["--model=~/m", "--output=~/o", "--input=~/a,~", "--input", "~/b"])
    opts = program.values(f)
    assert [opts["model"], opts["output"], opts["input"]] == [
        *(f"{tmp_path}/m", f"{tmp_path}/o"),
        [f"{tmp_path}/a,~", f"{tmp_path}/b"],
    ]
    config = config_flag.load("quickstart_sr_align")
    config.data.root, config.first_stage, config.data.val_root = "~/a,~/b", "~/run", "a~b"
    config_flag.expand_paths(config)
    assert (config.data.root, config.first_stage) == (f"{tmp_path}/a,{tmp_path}/b", f"{tmp_path}/run")
    assert config.data.val_root == "a~b"


# --- one real model, killed ---

KILLED = """
import functools, sys, threading
from arbiscale_jax.cli import main, overlap, picture_files, program, upscaling
from arbiscale_jax.runtime.whole_files import replacing
upscaling.writing = functools.partial(overlap.writing, 1)
upscaling.GROUP_ON_CPU = (10**6, 2)
write, left = picture_files.write, iter(range(3))
def blocking(path, *args):
    if next(left, None) is None:
        with replacing(path):
            print("begun", flush=True)
            threading.Event().wait(200)
    write(path, *args)
picture_files.write = blocking
sys.exit(program.run(main.dispatch, sys.argv[1:]))
"""


def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    """Small pictures share arrays, so that how they are grouped matters to their last bits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(upscaling, "GROUP_ON_CPU", (10**6, 2))
    monkeypatch.setattr(program, "start_jax", lambda: None)
    write(Path("in"), [f"{i}.png" for i in range(4)], height=16, width=16)  # of one size, for few programs
    argv = ["upscale", "--input=in", *QUICK]
    assert program.run(main.dispatch, [*argv, "--output=calm"]) == 0
    command = [sys.executable, "-c", KILLED, *argv, "--output=out"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    before = {name: (Path("out") / name).stat().st_mtime_ns for name in made()}
    assert len(before) == 3 and len(list(Path("out").glob(".*.part"))) == 1
    began = time.time_ns()
    assert program.run(main.dispatch, [*argv, "--output=out"]) == 0
    assert made("out") == made("calm") and len(made()) == 4 and list(Path("out").glob(".*.part")) == []
    for name in made():
        assert (Path("out") / name).read_bytes() == (Path("calm") / name).read_bytes(), name
        assert ((Path("out") / name).stat().st_mtime_ns < began) == (name in before)
    assert record("out") == record("calm")
