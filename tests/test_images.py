"""Reading and writing pictures: the values of every mode, depth and format, and what files say besides them."""

import io
import struct
import zlib

import numpy as np
import pytest
import skimage.color
import tifffile
from image_files import picture
from odd_images import ADOBE, chunk, cycle, lzw, packed, png, profile, tiff
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

import arbiscale_jax as aj
from arbiscale_jax import UserError, images
from arbiscale_jax.images import Metadata, Picture, alpha, kinds
from arbiscale_jax.images.icc import srgb_profile
from arbiscale_jax.images.streams import open_stream

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([RAMP, RAMP.T, RAMP[::-1]], -1)  # 16 16 3
SMOOTH = picture(3, 24, 32)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def by_tifffile(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def equal(content: bytes, wanted: np.ndarray, atol: float = 0) -> Picture:
    """Checks what is read, dtype and shape included."""
    found = aj.read(content)
    assert found.pixels.dtype == wanted.dtype and found.pixels.shape == wanted.shape
    np.testing.assert_allclose(found.pixels.astype(int), wanted.astype(int), atol=atol, rtol=0)
    return found


def with_alpha(colours: np.ndarray, opaque: np.ndarray) -> np.ndarray:
    return np.concatenate([colours, opaque.reshape(*colours.shape[:2], 1)], 2)


def srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


# --- PNG ---


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour, channels", [(0, 1), (4, 2), (2, 3), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_values(colour, channels, depth, interlaced):
    values = cycle(11, 13, channels, f"u{depth // 8}")
    equal(png(values, colour, depth, interlaced=interlaced), values)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_and_their_transparent_value(depth):
    peak = 2**depth - 1
    values = (RAMP[..., None] % (peak + 1)).astype(np.uint8)
    equal(png(values, 0, depth), values * np.uint8(255 // peak))
    clear = with_alpha(values * np.uint8(255 // peak), np.where(values == peak, 0, 255).astype(np.uint8))
    equal(png(values, 0, depth, chunk(b"tRNS", struct.pack(">H", peak))), clear)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3)])
def test_png_with_a_transparent_value(colour, channels, depth):
    values = cycle(5, 7, channels, f"u{depth // 8}")
    values[2, 3:5] = values[1, 1]
    values[2, 4, -1] ^= 1  # differs in its last bit, and is opaque
    opaque = (values != values[1, 1]).any(-1) * np.iinfo(values.dtype).max
    content = png(values, colour, depth, chunk(b"tRNS", struct.pack(f">{channels}H", *values[1, 1])))
    equal(content, with_alpha(values, opaque.astype(values.dtype)))


def test_palettes():
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    image = Image.fromarray(RAMP)
    image.putpalette(palette.tobytes())
    for kind in ("PNG", "TIFF", "BMP", "TGA", "PCX"):
        content = encoded(image, kind)
        if kind != "TGA":  # which has no signature, and is asked for by its name
            equal(content, palette[RAMP])
    opaque = np.arange(256, dtype=np.uint8)[::-1]
    equal(encoded(image, transparency=bytes(opaque)), with_alpha(palette[RAMP], opaque[RAMP]))
    equal(encoded(image, transparency=7), with_alpha(palette[RAMP], np.where(RAMP == 7, 0, 255).astype(np.uint8)))
    equal(
        encoded(image, "GIF", transparency=7), with_alpha(palette[RAMP], np.where(RAMP == 7, 0, 255).astype(np.uint8))
    )
    image.putpalette(np.repeat(opaque, 3).tobytes())
    equal(encoded(image), opaque[RAMP][..., None])  # greys alone


def test_tga_by_its_name(tmp_path):
    (tmp_path / "a.tga").write_bytes(encoded(COLOURS, "TGA"))
    assert np.array_equal(aj.read(tmp_path / "a.tga").pixels, COLOURS)
    (tmp_path / "a.png").write_bytes(encoded(COLOURS, "TGA"))
    with pytest.raises(UserError, match="a.png is not an image"):
        aj.read(tmp_path / "a.png")


# --- other formats ---


@pytest.mark.parametrize("kind", ["BMP", "DIB", "PPM", "SGI", "QOI", "ICO", "PCX", "JPEG2000", "WEBP", "TIFF", "AVIF"])
def test_lossless_formats_keep_values(kind):
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    found = (
        equal(encoded(COLOURS, kind, **options), COLOURS, atol=3 * (kind == "AVIF"))
        if kind != "ICO"
        else aj.read(encoded(COLOURS, kind))
    )
    assert np.array_equal(found.pixels[..., :3], COLOURS) or kind == "AVIF"
    assert found.metadata.format == kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "PPM", "SGI", "JPEG2000", "TIFF"])
def test_grey_stays_one_channel(kind):
    equal(encoded(RAMP, kind, **({"quality": 100} if kind == "JPEG" else {})), RAMP[..., None], atol=kind == "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit(kind):
    equal(encoded(Image.fromarray(RAMP > 99), kind), (RAMP > 99)[..., None] * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "TGA", "JPEG2000", "SGI"])
def test_alpha_is_kept(kind, tmp_path):
    values = with_alpha(COLOURS, np.maximum(RAMP, 1))
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(values, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert np.array_equal(aj.read(path if kind == "TGA" else path.read_bytes()).pixels, values)


def test_deep_portable_maps():
    values = cycle(5, 7, 3, np.uint16)
    equal(b"P6\n# made here\n7 5\n65535\n" + values.astype(">u2").tobytes(), values)
    equal(b"P5 7 5 65535\n" + values[..., :1].astype(">u2").tobytes(), values[..., :1])
    ten = np.arange(35).reshape(5, 7, 1) * 30 % 1024
    equal(b"P5 7 5 1023\n" + ten.astype(">u2").tobytes(), np.rint(ten * (65535 / 1023)).astype(np.uint16))
    floats = np.linspace(0, 1, 105, dtype=np.float32).reshape(5, 7, 3)
    equal(b"PF\n7 5\n-1.0\n" + floats[::-1].astype("<f4").tobytes(), np.rint(floats * 65535).astype(np.uint16))
    equal(b"Pf\n7 5\n-1.0\n" + floats[::-1, :, :1].tobytes(), np.rint(floats[..., :1] * 65535).astype(np.uint16))


# --- TIFF ---

DEEP = cycle(37, 21, 4, np.uint16)


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5}], ids=str)
@pytest.mark.parametrize("packing", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": 2}], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_tiff_layouts(channels, packing, options, layout):
    if channels == 1 and layout == "separate":
        pytest.skip("one channel has one plane")
    values = DEEP[..., :channels]
    given = values if layout == "contig" else np.moveaxis(values, -1, 0)
    more = dict(planarconfig=layout if channels > 1 else None, extrasamples=None if channels % 2 else ["unassalpha"])
    kind = "rgb" if channels > 2 else "minisblack"
    order = ">" if "tile" in options else "<"
    given = given if channels > 1 else values[..., 0]
    equal(by_tifffile(given, photometric=kind, byteorder=order, **more, **packing, **options), values)


@pytest.mark.parametrize("dtype", ["u4", "i4", "f2", "f4", "f8", "u2", "i2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_types(dtype, channels):
    share = np.linspace(0, 1, 20 * 30 * channels).reshape(20, 30, channels)
    share[5, 5] = 1
    white = {"u4": 2**32 - 1, "i4": 2**31 - 1, "u2": 65535, "i2": 32767}.get(dtype, 1)
    values = (share * white).astype(dtype)
    wanted = np.rint(values.astype(np.float64) / white * 65535).astype(np.uint16)
    given = values if channels > 1 else values[..., 0]
    equal(by_tifffile(given, photometric="rgb" if channels > 1 else "minisblack"), wanted)


@pytest.mark.parametrize("size, order", [(4, "<"), (4, ">"), (2, "<"), (8, ">")])
def test_the_float_predictor(size, order):
    """TIFF Technical Note 3: the bytes of equal rank of a row stand together, the highest first, as differences."""
    share = np.linspace(0, 1, 5 * 6 * 3).reshape(5, 6, 3).astype(f"f{size}")
    ranks = share.astype(f">f{size}").reshape(5, -1).view(np.uint8).reshape(5, -1, size).transpose(0, 2, 1)
    ranks = ranks.reshape(5, -1, 3).astype(int)
    ranks[:, 1:] -= ranks[:, :-1].copy()
    entries = {258: ("H", [8 * size] * 3), 262: ("H", [2]), 277: ("H", [3]), 339: ("H", [3] * 3), 317: ("H", [3])}
    content = tiff(
        [zlib.compress((ranks % 256).astype(np.uint8).tobytes())], (5, 6), entries | {259: ("H", [8])}, order
    )
    equal(content, np.rint(share.astype(np.float64) * 65535).astype(np.uint16))


@pytest.mark.parametrize("order", "<>")
def test_lzw_with_and_without_differences(order):
    values = DEEP[..., :3]
    entries = {258: ("H", [16] * 3), 262: ("H", [2]), 277: ("H", [3]), 259: ("H", [5])}
    plain, differences = values.astype(f"{order}u2"), values.copy()
    differences[:, 1:] -= values[:, :-1]
    equal(
        tiff([lzw(plain[:20].tobytes()), lzw(plain[20:].tobytes())], (37, 21), entries | {278: ("I", [20])}, order),
        values,
    )
    rows = [lzw(differences.astype(plain.dtype).tobytes())]
    equal(tiff(rows, (37, 21), entries | {317: ("H", [2])}, order), values)


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
def test_packed_bits(bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, (5, 7, 3))
    entries = {258: ("H", [bits] * 3), 262: ("H", [2]), 277: ("H", [3])}
    peak = 255 if bits < 9 else 65535
    wanted = np.rint(values * (peak / (2**bits - 1))).astype(np.uint8 if bits < 9 else np.uint16)
    equal(tiff([packed(row, bits) for row in values], (5, 7), entries), wanted)
    grey = {258: ("H", [bits]), 262: ("H", [1])}
    equal(tiff([packed(row, bits) for row in values[..., 0]], (5, 7), grey), wanted[..., :1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_may_be_zero(dtype):
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    values = (np.linspace(0, 1, 600).reshape(20, 30) * white).astype(dtype)
    wanted = np.rint((1 - values.astype(np.float64) / white) * (65535 if dtype != np.uint8 else 255))
    equal(
        by_tifffile(values, photometric="miniswhite"),
        wanted[..., None].astype(np.uint8 if dtype == np.uint8 else np.uint16),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_alpha_is_divided_out(channels, dtype):
    peak = np.iinfo(dtype).max
    opaque = np.array([[peak, peak // 2 + 1, peak // 5], [0, peak, peak // 3]], dtype)
    colour = np.full((2, 3, channels - 1), peak // 3 + 7, dtype)
    multiplied = np.rint(colour.astype(np.float64) * opaque[..., None] / peak).astype(dtype)
    content = by_tifffile(
        with_alpha(multiplied, opaque),
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig",
        extrasamples=["assocalpha"],
    )
    found = aj.read(content).pixels
    assert np.array_equal(found[..., -1], opaque)
    np.testing.assert_allclose(found[opaque > 0][:, :-1], colour[opaque > 0], atol=3)


@pytest.mark.parametrize("outlier", [1.0, 1.02, 1.2, 3.0, 1000.0, np.inf, -np.inf, np.nan, -5.0], ids=str)
@pytest.mark.parametrize("unit", [1, 255, 65535])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_no_outlier_decides_what_white_is(unit, outlier, dtype):
    if dtype == np.int32 and not (np.isfinite(outlier) and unit > 1 and abs(outlier) < 10):
        pytest.skip("whole numbers")
    ramp = np.linspace(0, 1, 64)[None].repeat(16, 0) * unit
    ramp[0, 0] = outlier * unit
    found = aj.read(encoded(ramp.astype(dtype), "TIFF")).pixels[..., 0]
    clean = np.nan_to_num(ramp.astype(dtype).astype(np.float64) / unit, nan=0, posinf=1, neginf=0)
    np.testing.assert_allclose(found, np.rint(65535 * np.clip(clean, 0, 1)), atol=1)


def test_an_overshoot_of_many_pixels_is_cut_off():
    ramp = np.linspace(0, 1.3, 1000, dtype=np.float32).reshape(10, 100)
    equal(encoded(ramp, "TIFF"), np.rint(65535.0 * np.minimum(ramp, 1))[..., None].astype(np.uint16), 1)
    equal(
        encoded(ramp * 255, "TIFF"), np.rint(65535 / 255 * np.minimum(ramp * 255, 255))[..., None].astype(np.uint16), 1
    )


def test_text_in_a_float_picture_is_as_bright_as_it_says():
    page = np.zeros((40, 50), np.float32)
    page[3, 4:9] = (50, 100, 150, 200, 255)  # fewer than one pixel in a hundred
    equal(encoded(page, "TIFF"), np.rint(page * 257)[..., None].astype(np.uint16))


# --- colour ---


def lab(rgb: np.ndarray) -> np.ndarray:
    return skimage.color.rgb2lab(rgb / 255, illuminant="D65")  # adapted values differ from D50's by little


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lab(dtype):
    rgb = np.array(
        [[[255, 255, 255], [0, 0, 0], [128, 128, 128], [200, 60, 50], [40, 90, 160], [60, 140, 70]]], np.uint8
    )
    source = ImageCms.profileToProfile(
        Image.fromarray(rgb), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert source is not None
    values = np.asarray(source).copy()
    if dtype == np.uint8:
        content = encoded(source, "TIFF")
    else:
        signed = values.view(np.int8).astype(np.int16) * 256
        deep = np.stack([values[..., 0].astype(np.uint16) * 257, *signed.view(np.uint16).T[1:].swapaxes(1, 2)], -1)
        entries = {258: ("H", [16] * 3), 262: ("H", [8]), 277: ("H", [3])}
        content = tiff([deep.tobytes()], (1, 6), entries)
    found = aj.read(content).pixels
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found / 257, rgb, atol=4)  # steps of a and b are 1


def test_cmyk_without_a_profile():
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 128, 255, 64]]], np.uint8)
    image = Image.frombytes("CMYK", (4, 1), inks.tobytes())
    light = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    equal(encoded(image, "TIFF"), light)
    entries = {258: ("H", [16] * 4), 262: ("H", [5]), 277: ("H", [4])}
    equal(tiff([(inks.astype("<u2") * 257).tobytes()], (1, 4), entries), light.astype(np.uint16) * 257, atol=129)
    flat = Image.new("CMYK", (8, 8), (10, 200, 90, 30))  # Pillow's JPEG files are inverted, as Adobe's are
    equal(encoded(flat, "JPEG", quality=100), np.asarray(flat.convert("RGB")), atol=2)


def cmyk_profile() -> bytes:
    """A profile of a table with two steps a side."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = np.clip((1 - inks[:, :3]) * (1 - inks[:, 3:]), 0, 1) * 0.5  # half as bright as without a profile
    values = lab(light[None] * 255)[0]
    table = np.rint(np.stack([values[:, 0] / 100, (values[:, 1] + 128) / 255, (values[:, 2] + 128) / 255], 1) * 255)
    head = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).reshape(-1))
    tag = head + bytes(range(256)) * 4 + table.astype(np.uint8).tobytes() + bytes(range(256)) * 3
    out = bytearray(128)
    out[8:12], out[12:16], out[16:20], out[20:24], out[36:40] = b"\2\0\0\0", b"prtr", b"CMYK", b"Lab ", b"acsp"
    out[68:80] = struct.pack(">3i", 63190, 65536, 54061)
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(tag)) + tag
    out[:4] = struct.pack(">I", 128 + len(body))
    return bytes(out) + body


def test_cmyk_with_a_profile():
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # of the other corners lcms makes pure white and black
    for kind in ("TIFF", "JPEG"):
        found = aj.read(encoded(image, kind, icc_profile=cmyk_profile())).pixels
        assert found.shape == (8, 8, 3) and np.abs(found[..., 1:].astype(int) - 128).max() <= 4  # and not 255


@pytest.mark.parametrize("depth", [8, 16])
def test_a_matrix_profile_of_rgb(depth):
    peak = 2**depth - 1
    values = cycle(20, 20, 3, f"u{depth // 8}")
    light = np.clip((values / peak) ** 2.2 @ (np.linalg.inv(SRGB) @ ADOBE).T, 0, 1)
    icc = profile([2.2] * 3, ADOBE)
    wanted = np.rint(peak * srgb(light)).astype(values.dtype)
    found = equal(
        png(values, 2, depth, chunk(b"iCCP", b"a\0\0" + zlib.compress(icc))), wanted, atol=1 + (depth > 8) * 9
    )
    assert found.metadata.icc == icc
    if depth == 8:
        by_lcms = ImageCms.profileToProfile(
            Image.fromarray(values), ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), 1
        )
        np.testing.assert_allclose(found.pixels.astype(int), np.asarray(by_lcms).astype(int), atol=2)


SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


def test_profiles_in_every_mode():
    icc, half = profile([2.2] * 3, ADOBE), np.full((4, 4), 100, np.uint8)
    grey = profile([1.0])
    rgb = np.stack([half, half // 2, half * 2], -1)
    linear = np.rint(255 * srgb(half / 255)).astype(np.uint8)[..., None]
    shown = aj.read(encoded(rgb, icc_profile=icc)).pixels
    assert np.abs(shown.astype(int) - rgb).max() > 5
    palette = Image.fromarray(rgb).quantize(4)
    equal(encoded(palette, icc_profile=icc), shown)
    equal(encoded(with_alpha(rgb, half), icc_profile=icc), with_alpha(shown, half))
    equal(encoded(half, icc_profile=grey), linear)
    equal(encoded(Image.merge("LA", [Image.fromarray(half)] * 2), icc_profile=grey), with_alpha(linear, half))
    equal(
        encoded(half.astype(np.uint16) * 257, icc_profile=grey),
        np.rint(65535 * srgb(half / 255))[..., None].astype(np.uint16),
        1,
    )
    equal(encoded(half, "JPEG", quality=100, icc_profile=grey), linear, atol=1)
    equal(by_tifffile(half, iccprofile=grey), linear)
    assert abs(int(aj.read(encoded(half, icc_profile=icc)).pixels[0, 0, 0]) - 100) <= 2  # grey of an RGB profile
    in_lab = profile([1.0], pcs=b"Lab ")  # the curve gives L*
    lightness = (100 / 255 * 100 + 16) / 116
    equal(encoded(half, icc_profile=in_lab), np.full((4, 4, 1), np.rint(255 * srgb(np.array(lightness**3))), np.uint8))


def test_srgb_profiles_change_nothing():
    curve = srgb_to_light(np.linspace(0, 1, 1024))
    for icc in (
        srgb_profile(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        profile([curve] * 3, SRGB),
    ):
        assert equal(encoded(COLOURS, icc_profile=icc), COLOURS).metadata.icc == icc
        deep = cycle(9, 9, 3, np.uint16)
        equal(png(deep, 2, 16, chunk(b"iCCP", b"a\0\0" + zlib.compress(icc))), deep)


def srgb_to_light(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("icc", [b"", b"garbage" * 100, profile([2.2] * 3, ADOBE)[:200], profile([1.0]), bytes(2000)])
def test_profiles_that_cannot_be_used_are_left_out(icc):
    assert equal(encoded(COLOURS, icc_profile=icc), COLOURS).metadata.icc is None


@pytest.mark.parametrize("depth", [8, 16])
def test_gamma(depth):
    values, peak = cycle(6, 6, 3, f"u{depth // 8}"), 2**depth - 1
    wanted = np.rint(peak * srgb(values / peak)).astype(values.dtype)
    equal(png(values, 2, depth, chunk(b"gAMA", struct.pack(">I", 100000))), wanted, atol=1)
    equal(png(values, 2, depth, chunk(b"gAMA", struct.pack(">I", 45455))), values)
    equal(png(values, 2, depth, chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sRGB", b"\0")), values)
    equal(png(values, 2, depth, chunk(b"gAMA", struct.pack(">I", 0))), values)


# --- metadata ---


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[271] = orientation, "Maker"
    exif[34665] = {33437: TiffImagePlugin.IFDRational(28, 10), 36867: "2020:01:02 03:04:05"}
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_once(orientation, tmp_path):
    wanted = np.asarray(SMOOTH)
    turned = Image.fromarray(SMOOTH)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions, which undo each orientation
    if orientation > 1:
        turned = turned.transpose(Image.Transpose(back[orientation]))
    for kind in ("PNG", "TIFF", "WEBP", "JPEG"):
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
        found = equal(encoded(turned, kind, exif=exif_of(orientation), **options), wanted, atol=4 * (kind == "JPEG"))
        for suffix in (".jpg", ".png", ".tif", ".webp"):
            aj.save(tmp_path / f"a{suffix}", found, quality=100)
            again = aj.read(tmp_path / f"a{suffix}")
            assert again.pixels.shape == wanted.shape
            np.testing.assert_allclose(again.pixels.astype(int), wanted.astype(int), atol=16)
            with Image.open(tmp_path / f"a{suffix}") as image:
                held = image.getexif()
                assert held.get(0x0112, 1) == 1 and held[271] == "Maker"
                assert held.get_ifd(34665)[33437] == 2.8 and held.get_ifd(34665)[36867] == "2020:01:02 03:04:05"


TEXT = {
    "Title": "Grüße",
    "Author": "A. Nother",
    "Comment": "Σ" * 3000,
    "workflow": "x" * 100_000,
    "Description": "a\nb",
}


def test_metadata_are_kept_and_dropped(tmp_path):
    info = PngImagePlugin.PngInfo()
    for key, text in TEXT.items():
        info.add_itxt(key, text)
    icc = profile([2.2] * 3, ADOBE)
    content = encoded(COLOURS, icc_profile=icc, dpi=(300, 150), exif=exif_of(1), pnginfo=info)
    found = aj.read(content)
    assert found.metadata.text == TEXT and found.metadata.icc == icc and found.metadata.format == "PNG"
    np.testing.assert_allclose(found.metadata.dpi, (300, 150), atol=0.02)
    deep = Picture(found.pixels.astype(np.uint16) * 257, found.metadata)
    held = {
        ".png": TEXT,
        ".tif": {key: TEXT[key] for key in ("Title", "Author", "Description")},
        ".webp": {},
        ".avif": {},
    }
    held[".jpg"] = {"Comment": TEXT["Comment"]}
    for one in (found, deep):
        for suffix, text in held.items():
            path = tmp_path / f"a{suffix}"
            aj.save(path, one, quality=100)
            again = aj.read(path).metadata
            assert again.icc == icc and again.text == text
            assert again.exif is not None and b"Maker" in again.exif
            if suffix in (".png", ".tif", ".jpg"):
                np.testing.assert_allclose(again.dpi, (300, 150), atol=0.02)
            aj.save(path, one, metadata=None)
            again = aj.read(path).metadata
            assert (again.icc, again.exif, again.dpi, again.text) == (None, None, None, {})
            assert b"Maker" not in path.read_bytes() and b"workflow" not in path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_are_the_same_through_the_profile_that_is_kept(suffix, dtype, tmp_path):
    icc = profile([2.2] * 3, ADOBE)
    wanted = np.rint(cycle(20, 20, 3, np.uint8) * 0.6 + 50).astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    aj.save(tmp_path / f"a{suffix}", Picture(wanted, Metadata(icc=icc)))
    again = aj.read(tmp_path / f"a{suffix}")
    assert again.metadata.icc == icc
    np.testing.assert_allclose(again.pixels.astype(int), wanted.astype(int), atol=3)
    with open_stream(tmp_path / f"rows{suffix}", (20, 20), 3, dtype, Metadata(icc=icc)) as stream:
        for y in range(0, 20, 3):
            stream.write(wanted[y : y + 3])
    assert np.array_equal(aj.read(tmp_path / f"rows{suffix}").pixels, again.pixels)
    if dtype == np.uint8:
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert np.abs(np.asarray(image).astype(int) - wanted).max() > 5  # the values are the profile's


def test_rgb_of_another_profile_is_marked_as_srgb(tmp_path):
    found = aj.read(encoded(Image.new("CMYK", (4, 4)), "TIFF", icc_profile=cmyk_profile()))
    aj.save(tmp_path / "a.png", found)
    assert aj.read(tmp_path / "a.png").metadata.icc == srgb_profile()
    assert np.array_equal(aj.read(tmp_path / "a.png").pixels, found.pixels)
    aj.save(tmp_path / "a.png", Picture(RAMP[..., None], Metadata(icc=profile([2.2] * 3, ADOBE))))
    assert aj.read(tmp_path / "a.png").metadata.icc is None  # grey, which has no RGB profile


def with_chunk(name: bytes, content: bytes) -> bytes:
    whole = encoded(SMOOTH)
    return whole[:33] + chunk(name, content) + whole[33:]


def bad_sum(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


TEXTS = b"".join(chunk(b"zTXt", b"key%d\0\0" % i + zlib.compress(bytes(1_000_000))) for i in range(70))


@pytest.mark.parametrize(
    "extra",
    [
        TEXTS,
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 5_000_000)),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000))),
        chunk(b"iCCP", b"printer\0\0" + zlib.compress(bytes(1_200_000))),
        chunk(b"iCCP", b"printer\0\0" + zlib.compress(bytes(50_000_000))),
        *(chunk(kind, b"garbage") for kind in (b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"cHRM", b"tIME")),
        *(
            chunk(kind, b"")
            for kind in (b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"tRNS", b"acTL", b"fcTL")
        ),
        bad_sum(chunk(b"tEXt", b"a\0b")),
        bad_sum(chunk(b"gAMA", struct.pack(">I", 100000))),
        chunk(b"abcd", bytes(100)),
    ],
    ids=range(25),
)
def test_bad_metadata_never_hide_good_pixels_of_png(extra):
    whole = encoded(SMOOTH)
    equal(whole[:33] + extra + whole[33:], SMOOTH)
    deep = SMOOTH.astype(np.uint16) * 257
    equal(png(deep, 2, 16, extra), deep)


@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0garbage", exif_of(6)[:30], exif_of(1)[:14] + b"\xff" * 40])
def test_bad_exif_never_hides_good_pixels(exif):
    for kind in ("JPEG", "WEBP", "PNG"):
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
        found = aj.read(encoded(SMOOTH, kind, exif=exif, **options)).pixels
        assert sorted(found.shape) == sorted(SMOOTH.shape)


# --- animations and pages ---

FRAMES = [np.roll(np.asarray(Image.fromarray(SMOOTH).quantize(16).convert("RGB")), 5 * i, 1) for i in range(4)]
MOVING = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}


@pytest.mark.parametrize("suffix", MOVING)
@pytest.mark.parametrize("loop", [0, 1, 3])
def test_animations_are_kept_frame_by_frame(suffix, loop, tmp_path):
    durations = [100.0, 50.0, 200.0, 70.0]
    images.save_frames(tmp_path / f"a{suffix}", FRAMES, durations, loop, quality=100)
    found = images.read_frames(tmp_path / f"a{suffix}")
    assert len(found) == 4 and found.kind == "animation" and found.loop == loop
    shown = list(found)
    assert [frame.duration for frame in shown] == durations
    for frame, wanted in zip(shown, FRAMES, strict=True):
        assert np.array_equal(frame.picture.pixels[..., :3], wanted)
    assert np.array_equal(aj.read(tmp_path / f"a{suffix}", frame=2).pixels[..., :3], FRAMES[2])
    assert len(list(images.read_frames((tmp_path / f"a{suffix}").read_bytes()))) == 4
    with pytest.raises(UserError, match="has 4 frames, so that there is no frame 4"):
        aj.read(tmp_path / f"a{suffix}", frame=4)


def test_frames_are_whole_where_a_file_holds_changes():
    """A dot moves over a picture, and the files hold the dots."""
    base = Image.fromarray(SMOOTH).quantize(64).convert("RGBA")
    frames = [base.copy() for _ in range(3)]
    for i, frame in enumerate(frames):
        frame.paste((255, 0, 0, 255), (4 * i, 3, 4 * i + 3, 6))
    for kind in ("GIF", "PNG", "WEBP"):
        for disposal in (0, 1) if kind == "PNG" else (1, 2) if kind == "GIF" else (None,):
            options = {} if disposal is None else {"disposal": disposal}
            options |= {"lossless": True} if kind == "WEBP" else {"blend": 0} if kind == "PNG" else {}
            content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)
            for frame, wanted in zip(images.read_frames(content), frames, strict=True):
                assert np.array_equal(frame.picture.pixels[..., :3], np.asarray(wanted)[..., :3]), (kind, disposal)


def test_an_animation_whose_first_picture_is_not_shown():
    frames = [Image.fromarray(one) for one in FRAMES]
    content = encoded(frames[0], save_all=True, append_images=frames[1:], default_image=True, duration=40)
    found = images.read_frames(content)
    assert len(found) == 3
    assert [np.array_equal(one.picture.pixels, wanted) for one, wanted in zip(found, FRAMES[1:], strict=True)] == [
        True
    ] * 3
    assert np.array_equal(aj.read(content).pixels, FRAMES[1])


def test_clear_parts_of_animations(tmp_path):
    clear = [np.where(np.arange(32) < 8 + 4 * i, 0, 255)[None].repeat(24, 0).astype(np.uint8) for i in range(4)]
    frames = [with_alpha(one, opaque) for one, opaque in zip(FRAMES, clear, strict=True)]
    for suffix in MOVING:
        images.save_frames(tmp_path / f"a{suffix}", frames, [80] * 4, quality=100)
        for frame, wanted in zip(images.read_frames(tmp_path / f"a{suffix}"), frames, strict=True):
            found = frame.picture.pixels
            assert np.array_equal(found[..., 3], wanted[..., 3])
            np.testing.assert_allclose(found[wanted[..., 3] > 0].astype(int), wanted[wanted[..., 3] > 0], atol=1)


def test_pages_of_several_sizes_and_depths(tmp_path):
    pages = [FRAMES[0], cycle(5, 9, 1, np.uint16), cycle(7, 3, 4, np.uint16), RAMP[..., None]]
    images.save_frames(tmp_path / "a.tif", pages, metadata=Metadata(dpi=(72, 72), text={"Title": "pages"}))
    found = images.read_frames(tmp_path / "a.tif")
    assert len(found) == 4 and found.kind == "pages"
    for frame, wanted in zip(found, pages, strict=True):
        assert frame.picture.pixels.dtype == wanted.dtype and np.array_equal(frame.picture.pixels, wanted)
        assert frame.picture.metadata.dpi == (72, 72) and frame.picture.metadata.text == {"Title": "pages"}
        assert frame.duration is None
    assert np.array_equal(aj.read(tmp_path / "a.tif", frame=2).pixels, pages[2])


def test_one_picture_is_one_frame():
    for content in (encoded(COLOURS), encoded(COLOURS, "GIF"), by_tifffile(DEEP), encoded(COLOURS, "JPEG")):
        found = images.read_frames(content)
        assert len(found) == 1 and len(list(found)) == 1 and found.kind == "picture"


def test_reduced_copies_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(DEEP, photometric="rgb")
        file.write(DEEP[::2, ::2], photometric="rgb", subfiletype=1)
    assert len(images.read_frames(tmp_path / "a.tif")) == 1


# --- writing ---


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".avif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_saved_is_read(channels, dtype, suffix, tmp_path):
    smooth = SMOOTH.astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    values = smooth[..., :1] if channels < 3 else smooth
    if channels % 2 == 0:
        values = with_alpha(values, np.maximum(smooth[..., 1], 1))
    path = tmp_path / "new" / f"a{suffix}"
    aj.save(path, values, quality=100)
    found = aj.read(path).pixels
    if suffix in (".png", ".tif"):
        assert found.dtype == dtype and np.array_equal(found, values)
        return
    assert found.dtype == np.uint8
    narrow = images.picture.to_uint8(values)
    if suffix == ".jpg":
        wanted = alpha.on_white(narrow)
    elif suffix == ".avif" and channels == 1:
        wanted = narrow
    else:
        wanted = np.repeat(narrow[..., :1], 3, 2) if channels < 3 else narrow[..., :3]
        wanted = with_alpha(wanted, narrow[..., -1]) if channels % 2 == 0 else wanted
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.astype(int), wanted.astype(int), atol=0 if suffix == ".webp" else 6)


def test_quality(tmp_path):
    sizes = {}
    for suffix in (".jpg", ".webp", ".avif"):
        for quality in (10, 60, None):
            aj.save(tmp_path / f"a{suffix}", picture(1, 200, 200), quality=quality)
            sizes[suffix, quality] = (tmp_path / f"a{suffix}").stat().st_size
        assert sizes[suffix, 10] < sizes[suffix, 60] < sizes[suffix, None]
        for quality in (0, 101):
            with pytest.raises(UserError, match=f"quality of .* cannot be {quality}"):
                aj.save(tmp_path / f"a{suffix}", SMOOTH, quality=quality)


def test_what_cannot_be_written(tmp_path, monkeypatch):
    for name in ("a", "a.bmp", "a.txt"):
        with pytest.raises(UserError, match="names no format that is written; give a name that ends in .png"):
            aj.save(tmp_path / name, SMOOTH)
    with pytest.raises(UserError, match="WEBP allows 16383 a side"):
        aj.save(tmp_path / "a.webp", np.zeros((1, 20000), np.uint8))
    (tmp_path / "file").touch()
    for suffix in (".jpg", ".png"):
        with pytest.raises(UserError, match="cannot be written"):
            aj.save(tmp_path / "file" / f"a{suffix}", SMOOTH)
    with pytest.raises(UserError, match="needs at least one frame"):
        images.save_frames(tmp_path / "a.gif", [])
    with pytest.raises(UserError, match="needs at least one page"):
        images.save_frames(tmp_path / "a.tif", [])
    with pytest.raises(UserError, match="frames of several sizes"):
        images.save_frames(tmp_path / "a.gif", [SMOOTH, COLOURS])
    with pytest.raises(UserError, match="4 frames, but 2 durations"):
        images.save_frames(tmp_path / "a.gif", FRAMES, [1, 2])
    monkeypatch.setattr(images.saving.features, "check", lambda name: False)
    with pytest.raises(UserError, match="install pillow 11.3 or newer"):
        aj.save(tmp_path / "a.avif", SMOOTH)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_the_longest_names(tmp_path):
    for suffix in (".png", ".jpg", ".tif"):
        path = tmp_path / ("写" * 83 + "x" * (6 - len(suffix)) + suffix)
        assert len(path.name.encode()) == 255
        aj.save(path, SMOOTH)
        assert path.is_file()
    assert len(list(tmp_path.iterdir())) == 3


def test_the_same_picture_has_the_same_bytes(tmp_path):
    found = aj.read(encoded(SMOOTH, exif=exif_of(1), icc_profile=srgb_profile()))
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        for name in "ab":
            aj.save(tmp_path / (name + suffix), found)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


# --- mistakes ---


def message_of(content: bytes, **options) -> str:
    with pytest.raises(UserError) as found:
        images.decode_image(content, "picture.x", **options)
    text = str(found.value)
    assert text.startswith("picture.x ") and text.endswith(".") and "\n" not in text
    return text


def test_bombs_are_refused_by_their_headers():
    bomb = png(np.zeros((1, 1, 3), np.uint8), 2, 8)
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    for depth in (8, 16):
        head = struct.pack(">IIBBBBB", 30000, 30000, depth, 2, 0, 0, 0)
        content = bomb[:8] + chunk(b"IHDR", head) + bomb[33:]
        assert "30000 x 30000 pixels, more than the 100000000 that are accepted" in message_of(content)
    for kind, size in (
        ("GIF", (20000, 20000)),
        ("BMP", (20000, 20000)),
        ("JPEG", (20000, 20000)),
        ("WEBP", (12000, 12000)),
    ):
        small = encoded(Image.new("L", (16, 16)), kind) if kind != "WEBP" else encoded(COLOURS, kind, lossless=True)
        place = {"GIF": (6, "<HH"), "BMP": (18, "<ii"), "JPEG": (small.find(b"\xff\xc0") + 5, ">HH")}.get(kind)
        if place:
            small = small[: place[0]] + struct.pack(place[1], *size) + small[place[0] + struct.calcsize(place[1]) :]
            assert "pixels, more than the 100000000" in message_of(small)
    entries = {258: ("H", [16] * 3), 262: ("H", [2]), 277: ("H", [3]), 259: ("H", [8])}
    assert "more than the 100000000" in message_of(tiff([zlib.compress(bytes(100))], (30000, 30000), entries))
    assert "more than" in message_of(
        tiff([b"a"], (9999, 9999), {258: ("H", [16] * 99), 262: ("H", [2]), 277: ("H", [99])})
    )
    assert "more than the 100 that" in message_of(encoded(COLOURS), max_pixels=100)
    strip = zlib.compress(bytes(50_000_000), 1)  # a strip may hold no more than its rows need
    equal(tiff([strip], (4, 4), entries), np.zeros((4, 4, 3), np.uint16))


KINDS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "QOI", "SGI", "ICO", "PCX")


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_one_sentence(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(noise, kind)
    for share in (0.02, 0.3, 0.6, 0.9):
        try:
            found = images.decode_image(content[: int(share * len(content))], "picture.x")
        except UserError as e:
            assert str(e).endswith(".") and "\n" not in str(e)
        else:
            assert kind in ("PCX", "SGI", "JPEG2000") and found.shape[2] == 3  # whose decoders take what there is


def test_a_header_of_blanks_is_read_in_no_time():
    for content in (b"P6" + b" " * 5000, b"P6 " + b"#\n " * 2000, b"P5" + b" #" * 2000 + b"\n1 1 x"):
        message_of(content)


def test_truncated_deep_files():
    deep = DEEP[..., :3]
    for content in (png(deep, 2), by_tifffile(deep), by_tifffile(deep, compression="zlib", tile=(16, 16))):
        for share in (0.3, 0.6, 0.9):
            assert "damaged or truncated" in message_of(content[: int(share * len(content))])


def test_directories_in_a_circle():
    content = bytearray(encoded(SMOOTH, "TIFF"))
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * count, first)
    equal(bytes(content), SMOOTH)


def test_files_of_other_kinds():
    for content in (
        b"This is text.",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"8BPS\0\1" + bytes(100),
        bytes(9),
    ):
        assert "picture.x is not an image of a format that is read" in message_of(content)
    assert "picture.x is empty" in message_of(b"")
    with pytest.raises(UserError, match="in memory is empty"):
        aj.read(b"")
    entries = {258: ("H", [16]), 262: ("H", [32803])}
    assert "CFA, which are not read" in message_of(tiff([bytes(32)], (4, 4), entries))
    assert not {".eps", ".pdf", ".mpg", ".psd"} & images.readable_extensions()
    assert {".png", ".jpg", ".webp", ".tif", ".avif"} <= images.readable_extensions()


def test_reading_leaves_no_trace(tmp_path, capfd):
    limit = Image.MAX_IMAGE_PIXELS
    for content in (encoded(SMOOTH, "TIFF")[:300], encoded(SMOOTH)[:200], by_tifffile(DEEP)[:500]):
        message_of(content)
    (tmp_path / "folder.png").mkdir()
    for name, match in (("none.png", "There is no image file"), ("folder.png", "is not a file")):
        with pytest.raises(UserError, match=match):
            aj.read(tmp_path / name)
    assert Image.MAX_IMAGE_PIXELS == limit and capfd.readouterr() == ("", "")


# --- for training ---


def test_read_image_shows_everything_as_rgb_on_white():
    values = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    wanted = [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    assert images.decode_image(encoded(values), "a").tolist() == wanted
    assert images.decode_image(png(values.astype(np.uint16) * 257, 6), "a").tolist() == wanted
    assert images.decode_image(encoded(np.full((1, 1), 32896, np.uint16)), "a").tolist() == [[[128] * 3]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_read_image_takes_every_mode(tmp_path, mode):
    grey = np.full((4, 6), 255, np.uint8)
    grey[:, :3] = 0
    if mode in ("I;16", "I", "F"):
        white, dtype = {"I;16": (65535, np.uint16), "I": (65535, np.int32), "F": (1, np.float32)}[mode]
        image = Image.fromarray((grey // 255).astype(dtype) * dtype(white))
    else:
        image = Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.tif" if mode not in ("LA",) else tmp_path / "a.png")
    read = images.read_image(next(tmp_path.glob("a.*")))
    assert read.shape == (4, 6, 3) and read.dtype == np.uint8
    np.testing.assert_allclose(read, np.repeat(grey[:, :, None], 3, axis=2), atol=1)


def test_read_image_keeps_16_bit_grey_in_proportion(tmp_path):
    Image.fromarray(np.full((2, 2), 32896, np.uint16)).save(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png")[0, 0].tolist() == [128, 128, 128]


def test_read_image_turns_upright_and_puts_transparency_on_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right by 90 degrees
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert images.read_image(tmp_path / "a.jpg").shape == (8, 4, 3)
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png")[0, 0].tolist() == [255, 255, 255]
    clear = Image.new("P", (2, 2), 3)
    clear.putpalette([0] * 768)
    clear.save(tmp_path / "p.png", transparency=3)
    assert images.read_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    Image.new("1", (30000, 30000)).save(tmp_path / "bomb.png")
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(UserError, match="30000 x 30000 pixels, more than the 100000000 that are accepted"):
        images.read_image(tmp_path / "bomb.png")
    assert Image.MAX_IMAGE_PIXELS == limit


# --- alpha ---


def test_colours_bleed_under_clear_pixels():
    values = np.zeros((5, 9, 4), np.uint8)
    values[:, :3], values[:, 6:], values[:, 3:6, :3] = (200, 10, 0, 255), (0, 20, 90, 1), 77
    found = alpha.bleed(values[..., :3], values[..., 3])
    assert (found[:, :4] == (200, 10, 0)).all() and (found[:, 5:] == (0, 20, 90)).all()
    values[..., 3] = 0
    assert np.array_equal(alpha.bleed(values[..., :3], values[..., 3]), values[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(24, 32), (61, 83), (240, 96), (7, 9), (24, 100), (1, 1)])
def test_a_channel_is_resized_in_bands_as_at_once(size, dtype):
    channel = SMOOTH[..., 0].astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    whole = alpha.resize_channel(channel, size)
    assert whole.shape == size and whole.dtype == dtype
    for rows in (1, 7, 1000):
        assert np.array_equal(np.concatenate(list(alpha.resize_channel_rows(channel, size, None, rows))), whole)
    box = (size[0] // 3, size[1] // 4, max(1, size[0] // 2), max(1, size[1] // 3))
    assert np.array_equal(
        alpha.resize_channel(channel, size, box), whole[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    )
    if min(size) > 30:  # Pillow leaves out what lies beyond the edges
        by_pillow = Image.fromarray(channel.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
        wanted, inside = np.clip(np.asarray(by_pillow), 0, np.iinfo(dtype).max), (slice(24, -24), slice(8, -8))
        np.testing.assert_allclose(whole[inside], wanted[inside], atol=0.6)
    for level in (0, 1, np.iinfo(dtype).max):
        assert (alpha.resize_channel(np.full_like(channel, level), size) == level).all()


# --- kinds ---


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 2), (6, 8, 3), (6, 8, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_come_back_as_they_were(dtype, shape):
    values = np.random.default_rng(0).random(shape)
    given = values.astype(dtype) if dtype(0.5) else np.rint(values * np.iinfo(dtype).max).astype(dtype)
    found = kinds.to_picture(given)
    assert found.pixels.dtype == (np.uint8 if dtype == np.uint8 else np.uint16)
    back = kinds.like(found.pixels, given)
    assert back.dtype == dtype and back.shape == shape
    np.testing.assert_allclose(back.astype(float), given.astype(float), atol=1e-3 if dtype == np.float16 else 1e-5)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV", "YCbCr", "I", "F", "I;16", "RGBX", "La", "RGBa"]
)
def test_pil_images_come_back_as_pil_images(mode):
    if mode in ("I", "F", "I;16"):
        image = Image.fromarray(
            (RAMP.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode])) * (257 if mode == "I;16" else 1)
        )
    elif mode in ("La", "RGBa"):
        image = (
            Image.fromarray(with_alpha(COLOURS, np.full_like(RAMP, 255)))
            .convert("LA" if mode == "La" else "RGBA")
            .convert(mode)
        )
    else:
        image = Image.fromarray(COLOURS).convert(mode)
    found = kinds.to_picture(image)
    reference = {"I": RAMP[..., None], "F": RAMP[..., None], "I;16": RAMP[..., None]}.get(mode)
    if reference is None:
        plain = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert(
            "LA" if mode in ("La", "LA") else "L" if mode in "1L" else "RGBA" if "A" in mode.upper() else "RGB"
        )
        reference = np.asarray(plain).reshape(16, 16, -1)
    np.testing.assert_allclose(images.picture.to_uint8(found.pixels).astype(int), reference.astype(int), atol=1)
    back = kinds.like(found.pixels, image)
    assert isinstance(back, Image.Image) and back.size == image.size
    family = {
        "1": "L",
        "P": "RGB",
        "CMYK": "RGB",
        "HSV": "RGB",
        "YCbCr": "RGB",
        "I": "I;16",
        "F": "I;16",
        "RGBX": "RGB",
    }
    assert back.mode == family.get(mode, mode.upper() if mode != "I;16" else mode)


def test_pil_images_are_turned_and_converted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(SMOOTH, "JPEG", exif=exif_of(6), icc_profile=profile([2.2] * 3, ADOBE)))
    with Image.open(tmp_path / "a.jpg") as image:
        found = kinds.to_picture(image)
    assert np.array_equal(found.pixels, aj.read(tmp_path / "a.jpg").pixels) and found.pixels.shape == (32, 24, 3)
    assert np.array_equal(kinds.to_picture(tmp_path / "a.jpg").pixels, found.pixels)
    assert kinds.like(found.pixels, tmp_path / "a.jpg").dtype == np.uint8


@pytest.mark.parametrize(
    "given, message",
    [
        (None, "what was given is NoneType"),
        ([[1, 2], [3, 4]], "what was given is list"),
        (np.zeros((2, 3, 5), np.uint8), r"what was given is an array \[2x3x5\] of uint8"),
        (np.zeros(5, np.uint8), r"an array \[5\] of uint8"),
        (np.zeros((0, 5), np.uint8), r"an array \[0x5\] of uint8"),
        (np.zeros((2, 3), np.int64), "an array of int64"),
        (np.zeros((2, 3), complex), "an array of complex128"),
        (np.full((2, 3), 200.0), r"lie in \[200, 200\]; scale them"),
        (np.full((2, 3), np.nan), "not a number"),
    ],
)
def test_what_is_no_picture(given, message):
    with pytest.raises(UserError, match=message):
        kinds.to_picture(given)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("webp", np.uint8)] + [(k, d) for k in ("zstd", "lerc", "jpegxl", "jpeg2000") for d in (np.uint8, np.uint16)],
)
def test_rare_ways_of_tiff_compression_are_read_with_the_extra_tiff(kind, dtype):
    pytest.importorskip("imagecodecs")
    values = COLOURS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    equal(by_tifffile(values, compression=kind, photometric="rgb"), values)


def test_a_rare_way_of_tiff_compression_names_the_package_that_reads_it(monkeypatch):
    def without_codecs(page, **options):
        raise ValueError(f"{page.compression!r} requires the 'imagecodecs' package")

    content = by_tifffile(COLOURS, photometric="rgb")
    start = content.index(struct.pack("<HHI", 259, 3, 1)) + 8
    content = content[:start] + struct.pack("<H", 50001) + content[start + 2 :]
    monkeypatch.setattr(tifffile.TiffPage, "asarray", without_codecs)
    with pytest.raises(UserError, match="is compressed by WEBP; install the package imagecodecs to read it"):
        aj.read(content)
