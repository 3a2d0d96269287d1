"""What `upscale` takes over from its inputs: channels, depth, frames and metadata; and the formats of its results."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import picture
from PIL import Image, ImageCms

from arbiscale_jax import UserError, images
from arbiscale_jax.cli import main, picture_files, program
from arbiscale_jax.images import row_saving


class Nearest:
    """Repeats pixels, and records how many pictures it was given at once and the options."""

    def __init__(self):
        self.calls = []

    def upscale_each(self, pictures, sizes, samples, *, box, progress, **options):
        self.calls.append((len(pictures), options))
        progress(1, 1)
        for number, (pixels, (height, width)) in enumerate(zip(pictures, sizes, strict=True)):
            rows, cols = np.arange(height) * len(pixels) // height, np.arange(width) * pixels.shape[1] // width
            top, left, h, w = box or (0, 0, height, width)
            for answer in range(samples):
                yield number, answer, iter([pixels[rows[top : top + h]][:, cols[left : left + w]]])

    def generate_each(self, num, wanted, **options):
        yield sorted(wanted), np.zeros(num)

    def viewer(self, z):
        return self

    def rows(self, size):
        yield np.zeros((*size, 3), np.uint8)


@pytest.fixture
def nearest(stand_in):
    return stand_in(Nearest())


def upscale(*argv: str) -> int:
    return program.run(main.dispatch, ["upscale", "--model=m", "--output=out", "--scale=2", *argv])


def repeated(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(2, 0).repeat(2, 1)


def error_of(capsys, *argv: str) -> str:
    capsys.readouterr()
    assert upscale(*argv) == 2
    return capsys.readouterr().err.splitlines()[-1]


RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("whole", [True, False])
def test_channels_and_depth_are_those_of_the_input(nearest, monkeypatch, channels, dtype, suffix, whole):
    pixels = RNG.integers(0, np.iinfo(dtype).max + 1, (6, 5, channels)).astype(dtype)
    images.save(f"a{suffix}", pixels)
    if not whole:  # as a result that is larger than memory
        monkeypatch.setattr(row_saving, "WHOLE_PIXELS", 10)
    assert upscale(f"--input=a{suffix}", "--format=same") == 0
    found = images.read(f"out/a_x2{suffix}").pixels
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, repeated(pixels))


@pytest.mark.parametrize(
    ("name", "options", "expected", "kind"),
    [
        ("a.jpg", (), "a_x2.png", "PNG"),
        ("a.jpg", ("--format=same",), "a_x2.jpg", "JPEG"),
        ("a.jpeg", ("--format=same",), "a_x2.jpeg", "JPEG"),
        ("a.bmp", ("--format=same",), "a_x2.png", "PNG"),
        ("a.webp", ("--format=same", "--quality=100"), "a_x2.webp", "WEBP"),
        ("a.png", ("--format=jpg", "--quality=30"), "a_x2.jpg", "JPEG"),
        ("a.png", ("--format=tiff",), "a_x2.tif", "TIFF"),
        ("a.png", ("--format=avif",), "a_x2.avif", "AVIF"),
        ("a.png", ("--format=webp", "--name={stem}.webp"), "a.webp", "WEBP"),
    ],
)
def test_the_format_of_results(nearest, name, options, expected, kind):
    Image.fromarray(picture(0)).save(name)
    assert upscale(f"--input={name}", *options) == 0
    assert [path.name for path in Path("out").iterdir() if path.suffix not in (".json", ".jsonl")] == [expected]
    with Image.open(Path("out", expected)) as image:
        assert image.format == kind and image.size == (48, 40)


def test_a_name_that_does_not_fit_its_content(nearest):
    Image.fromarray(picture(0)).save("a.png", "JPEG")
    assert upscale("--input=a.png", "--format=same") == 0
    with Image.open("out/a_x2.jpg") as image:
        assert image.format == "JPEG"


def test_quality_matters(nearest):
    Image.fromarray(picture(0, 64, 64)).save("a.png")
    for quality in (20, 95):
        assert upscale("--input=a.png", "--format=jpg", f"--quality={quality}", f"--output=q{quality}") == 0
    assert Path("q20/a_x2.jpg").stat().st_size < Path("q95/a_x2.jpg").stat().st_size / 2


def test_metadata_are_kept_or_dropped(nearest):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a title"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture(0)).save("a.jpg", exif=exif, icc_profile=icc, dpi=(300, 300), quality=95)
    assert upscale("--input=a.jpg") == 0
    assert upscale("--input=a.jpg", "--no-metadata", "--output=bare") == 0
    with Image.open("out/a_x2.png") as kept, Image.open("bare/a_x2.png") as bare:
        assert kept.size == bare.size == (40, 48)  # turned
        assert kept.getexif()[0x0112] == 1 and kept.getexif()[0x010E] == "a title"
        assert kept.info["icc_profile"] and round(kept.info["dpi"][0]) == 300
        assert not ({"icc_profile", "dpi", "exif"} & set(bare.info)) and not dict(bare.getexif())
        np.testing.assert_array_equal(kept, bare)


def animation(name: str, number: int = 5, **options) -> list[np.ndarray]:
    frames = [picture(seed) for seed in range(number)]
    some = [Image.fromarray(frame) for frame in frames]
    some[0].save(name, save_all=True, append_images=some[1:], **options)
    return frames


@pytest.mark.parametrize(
    ("name", "result", "options"),
    [
        ("a.png", "a_x2.png", ()),
        ("a.apng", "a_x2.apng", ()),
        ("a.webp", "a_x2.webp", ("--format=same", "--quality=100")),
        ("a.webp", "a_x2.png", ("--format=png",)),
        ("a.tif", "a_x2.tif", ()),
        ("a.tiff", "a_x2.tif", ("--format=tiff",)),
    ],
)
def test_all_frames_are_upscaled_with_one_seed(nearest, monkeypatch, capsys, name, result, options):
    monkeypatch.setattr("arbiscale_jax.cli.upscaling.GROUP_ON_CPU", (10_000, 2))
    kind = {".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}.get(Path(name).suffix, "PNG")
    times = {} if kind == "TIFF" else dict(duration=[40, 60, 80, 100, 120], loop=3)
    frames = animation(name, format=kind, **times, **({"lossless": True} if kind == "WEBP" else {}))
    assert upscale(f"--input={name}", "--seed=7", *options) == 0
    assert [number for number, _ in nearest.calls] == [2, 2, 2]  # the last part is filled up
    assert {given["seed"] for _, given in nearest.calls} == {7}
    found = images.read_frames(f"out/{result}")
    assert len(found) == 5
    for frame, expected, duration in zip(found, frames, times.get("duration", [None] * 5), strict=True):
        np.testing.assert_array_equal(frame.picture.pixels, repeated(expected))
        assert frame.duration == duration
    assert found.loop == times.get("loop")
    assert "note: inputs with several frames or pages: 1; all 5 frames are upscaled" in capsys.readouterr().err


def test_a_gif_stays_one(nearest):
    frames = [Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)) for i in range(4)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:], duration=50, loop=0)
    assert upscale("--input=a.gif") == 0
    found = images.read_frames("out/a_x2.gif")
    assert [int(frame.picture.pixels.max()) for frame in found] == [0, 60, 120, 180] and found.loop == 0
    assert upscale("--input=a.gif", "--first-frame") == 0
    assert images.read("out/a_x2.png").pixels.max() == 0
    assert upscale("--input=a.gif", "--output=b.gif") == 0
    assert len(images.read_frames("b.gif")) == 4


def test_answers_windows_and_pages_of_several_sizes(nearest):
    pages = [picture(0), picture(1, 30, 16)]
    images.save_frames("a.tif", pages)
    assert upscale("--input=a.tif", "--samples=2", "--box=4,6,8,10") == 0
    for answer in range(2):
        found = images.read_frames(f"out/a_x2_at_4_6_8_10_{answer}.tif")
        for page, expected in zip(found, pages, strict=True):
            np.testing.assert_array_equal(page.picture.pixels, repeated(expected)[4:12, 6:16])


def test_frames_go_on_where_they_were_stopped(nearest, monkeypatch):
    animation("a.png")
    animation("b.png", 3)
    write, left = picture_files.write_frames, iter([True, False])

    def stopping(*args):
        if not next(left):
            raise KeyboardInterrupt
        write(*args)

    monkeypatch.setattr(picture_files, "write_frames", stopping)
    assert upscale("--input=a.png", "b.png") == 130
    monkeypatch.setattr(picture_files, "write_frames", write)
    nearest.calls.clear()
    assert upscale("--input=a.png", "b.png") == 0
    assert [number for number, _ in nearest.calls] == [3]
    assert [len(images.read_frames(f"out/{name}_x2.png")) for name in "ab"] == [5, 3]


def test_an_animation_that_vanishes_is_named_and_the_others_are_upscaled(nearest, monkeypatch, capsys):
    for name in "ab":
        animation(f"{name}.png", 3)
    read, paths = picture_files.read_frames, []

    def vanishing(path, opts):
        paths.append(path.name)
        if path.name == "a.png" and paths.count("a.png") == 2:  # the first time is for the plan
            raise UserError("a.png cannot be read.")
        return read(path, opts)

    monkeypatch.setattr(picture_files, "read_frames", vanishing)
    assert upscale("--input=a.png", "b.png") == 1
    assert "a.png cannot be read." in capsys.readouterr().err
    assert not Path("out/a_x2.png").exists() and len(images.read_frames("out/b_x2.png")) == 3


def test_frames_that_are_damaged_or_do_not_fit_are_left_out(nearest, capsys):
    animation("a.tif")
    animation("b.png")
    cut = Path("b.png").read_bytes()
    Path("c.png").write_bytes(cut[: len(cut) // 2])
    Image.fromarray(picture(0)).save("d.png")
    assert upscale("--input=a.tif", "b.png", "c.png", "d.png", "--format=jpg") == 1
    err = capsys.readouterr().err
    assert "a.tif has 5 pages, which a .jpg file cannot hold; give --first-frame or --format tiff" in err
    assert "b.png has 5 frames, which a .jpg file cannot hold; give --first-frame or --format png, webp or avif" in err
    assert "left out: c.png" in err and [path.name for path in Path("out").glob("*.jpg")] == ["d_x2.jpg"]
    assert "A .gif file holds animations, and d.png is none" in error_of(capsys, "--input=d.png", "--output=x.gif")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format=webp", "--output=x.png"), "--output names x.png and --format says webp"),
        (("--format=same", "--output=x.png"), "--output names x.png and --format says same"),
        (("--quality=80",), "--quality says nothing about PNG"),
        (("--quality=80", "--format=tiff"), "--quality says nothing about TIFF"),
        (("--quality=80", "--output=x.png"), "--quality says nothing about PNG"),
        (("--format=gif",), "--format=gif"),
        (("--format=webp", "--size=1x20000"), "WEBP allows 16383 a side"),
    ],
)
def test_formats_that_cannot_be_are_refused_before_any_work(nearest, capsys, options, message):
    Image.fromarray(picture(0)).save("a.png")
    arguments = [one for one in ("--scale=2", *options) if "--size" not in str(options) or one != "--scale=2"]
    assert program.run(main.dispatch, ["upscale", "--model=m", "--output=out", "--input=a.png", *arguments]) == 2
    assert message in capsys.readouterr().err and not nearest.calls


def test_generated_images_have_formats_too(nearest, capsys):
    argv = ["generate", "--model=g", "--num=1", "--sizes=16"]
    assert program.run(main.dispatch, [*argv, "--output=out", "--format=webp", "--quality=80"]) == 0
    with Image.open("out/sample_0_000_16x16.webp") as image:
        assert image.size == (16, 16)
    assert program.run(main.dispatch, [*argv, "--output=one.jpg"]) == 0
    assert Path("one.jpg").exists()
    assert program.run(main.dispatch, [*argv, "--format=same"]) == 2


def test_every_pages_size_is_checked_and_counted(nearest, capsys, monkeypatch):
    small, large = RNG.integers(0, 256, (4, 5, 3), np.uint8), RNG.integers(0, 256, (40, 50, 3), np.uint8)
    images.save_frames("a.tif", [small, large])
    assert "80 x 100 pixels is larger than --max-output-pixels=7999" in error_of(
        capsys, "--input=a.tif", "--max-output-pixels=7999"
    )
    assert "--box=0,0,9,9 is not inside the 8 x 10 pixels of a.tif" in error_of(
        capsys, "--input=a.tif", "--box=0,0,9,9"
    )
    room = 3 * (8 * 10 + 80 * 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, room - 1))
    assert "free" in error_of(capsys, "--input=a.tif")
    assert not nearest.calls
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, room))
    assert upscale("--input=a.tif") == 0
    found = [frame.picture.pixels for frame in images.read_frames("out/a_x2.tif")]
    np.testing.assert_array_equal(found[0], repeated(small))
    np.testing.assert_array_equal(found[1], repeated(large))


def test_the_disk_must_have_room_for_the_channels_and_depth_of_the_results(nearest, capsys, monkeypatch):
    images.save("a.png", RNG.integers(0, 65536, (4, 5, 4)).astype(np.uint16))
    room = 8 * 10 * 4 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, room - 1))
    assert "free" in error_of(capsys, "--input=a.png")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, room))
    assert upscale("--input=a.png") == 0
