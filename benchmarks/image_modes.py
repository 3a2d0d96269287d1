"""Writes the tables of docs/FORMATS.md: what each mode of each format is read as, and what is written.

    python benchmarks/image_modes.py

Files are made by Pillow, tifffile and `fuzz_images.deep_png`, read by `aj.read`, and compared with what went in.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from fuzz_images import deep_png
from PIL import Image, ImageCms

import arbiscale_jax as aj
from arbiscale_jax.images import save_frames
from arbiscale_jax.images.formats import EXTENSIONS
from arbiscale_jax.images.kinds import pillow_image
from arbiscale_jax.images.picture import to_uint8, to_uint16

NAMES = {1: "grey", 2: "grey + alpha", 3: "RGB", 4: "RGB + alpha"}
BEST = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}
REOPENED = (("GIF", "L"), ("GIF", "P"))  # modes of files that Pillow opens as another one
WRITTEN = (".png", ".tif", ".jpg", ".webp", ".avif", ".gif")


def sources() -> dict[str, tuple[np.ndarray, Image.Image | None, dict]]:
    """Returns the modes: (the right values, the image for Pillow or None, the arguments for tifffile)."""
    ramp = np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8) * 4
    rgb = np.stack([ramp, ramp[::-1], 255 - ramp], -1)
    opaque = np.maximum(ramp[:, ::-1], 1)[..., None]
    grey, shares = ramp[..., None], (ramp / 255).astype(np.float32)
    grey_alpha, rgba = np.concatenate([grey, opaque], -1), np.concatenate([rgb, opaque], -1)
    palette = Image.fromarray(rgb).quantize(32)
    shown, clear = np.asarray(palette.convert("RGB")), np.asarray(palette) == 5
    keyed = palette.copy()
    keyed.info["transparency"] = 5
    keyed_values = np.concatenate([shown, np.where(clear, 0, 255).astype(np.uint8)[..., None]], -1)
    inks = Image.fromarray(rgb).convert("CMYK")
    light, srgb = np.asarray(inks.convert("RGB")), ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(pillow_image(rgb), srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    deep = [to_uint16(one) for one in (grey, grey_alpha, rgb, rgba)]
    for one in deep:
        one[1:-1, 1:-1, 0] ^= 0x5A  # the lower bytes count
    pillow = {
        "1 bit": ((ramp > 99)[..., None] * np.uint8(255), Image.fromarray(ramp > 99)),
        "grey, 8 bits": (grey, pillow_image(grey)),
        "grey + alpha, 8 bits": (grey_alpha, pillow_image(grey_alpha)),
        "palette": (shown, palette),
        "palette, one colour clear": (keyed_values, keyed),
        "RGB, 8 bits": (rgb, pillow_image(rgb)),
        "RGB + alpha, 8 bits": (rgba, pillow_image(rgba)),
        "CMYK, 8 bits": (light, inks),
        "Lab, 8 bits": (rgb, lab),
        "grey, 16 bits": (deep[0], Image.fromarray(deep[0][..., 0])),
        "grey, 32-bit integers": (grey, Image.fromarray(to_uint16(ramp).astype(np.int32))),
        "grey, floats": (grey, Image.fromarray(shares)),
    }
    by_tifffile = {
        "grey, white is 0, 16 bits": (65535 - deep[0], deep[0][..., 0], "miniswhite"),
        "grey + alpha, 16 bits": (deep[1], deep[1], "minisblack"),
        "RGB, 16 bits": (deep[2], deep[2], "rgb"),
        "RGB + alpha, 16 bits": (deep[3], deep[3], "rgb"),
        "CMYK, 16 bits": (light, to_uint16(np.asarray(inks)), "separated"),
        "RGB, 32-bit integers": (deep[2], deep[2] * np.uint32(65537), "rgb"),
        "RGB, floats of 64 bits": (deep[2], deep[2] / 65535, "rgb"),
        "RGB, floats of 16 bits": (rgb, (rgb / 255).astype(np.float16), "rgb"),
    }
    found = {mode: (values, image, {}) for mode, (values, image) in pillow.items()}
    for mode, (values, given, photometric) in by_tifffile.items():
        found[mode] = values, None, {"values": given, "photometric": photometric}
    return found


def content_of(image: Image.Image | None, options: dict, kind: str) -> bytes | None:
    """Encodes a mode in a format; None if no library here writes it."""
    if image is None:
        return deep_content(kind, **options)
    file = io.BytesIO()
    try:
        image.copy().save(file, kind, **BEST.get(kind, {}))
        with Image.open(io.BytesIO(file.getvalue())) as again:
            same = again.mode == image.mode or (kind, image.mode) in REOPENED
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return file.getvalue() if same else None  # some formats hold another mode


def deep_content(kind: str, values: np.ndarray, photometric: str) -> bytes | None:
    """Encodes values deeper than Pillow's as PNG, PNM or TIFF."""
    height, width, channels = values.shape if values.ndim == 3 else (*values.shape, 1)
    rgb = photometric == "rgb" and channels == 3
    if kind == "PNG" and values.dtype == np.uint16 and photometric in ("rgb", "minisblack"):
        return deep_png(values, {2: 4, 3: 2, 4: 6}[channels])
    if kind == "PPM" and rgb and values.dtype == np.uint16:
        return f"P6 {width} {height} 65535\n".encode() + values.astype(">u2").tobytes()
    if kind == "PPM" and rgb and values.dtype == np.float64:
        return f"PF {width} {height} -1.0\n".encode() + values[::-1].astype("<f4").tobytes()
    if kind != "TIFF":
        return None
    layout = {"planarconfig": "contig"} if channels > 1 else {}
    if channels in (2, 4) and photometric != "separated":
        layout["extrasamples"] = ["unassalpha"]
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric=photometric, **layout)
    return file.getvalue()


def read_as(content: bytes, wanted: np.ndarray, path: Path) -> str:
    """Says what is read, and how far it is from the right values, in levels of 255."""
    path.write_bytes(content)
    pixels = aj.read(path).pixels
    said = f"{NAMES[pixels.shape[2]]} {8 * pixels.dtype.itemsize}"
    if pixels.shape != wanted.shape:
        return said
    wanted = to_uint8(wanted) if pixels.dtype == np.uint8 else to_uint16(wanted)
    if pixels.shape[2] in (2, 4):  # what is clear has no colour
        pixels, wanted = pixels * (pixels[..., -1:] > 0), wanted * (wanted[..., -1:] > 0)
    off = np.abs(pixels.astype(float) - wanted).max() / (257 if pixels.dtype == np.uint16 else 1)
    return said if off < 0.005 else f"{said}, ±{off:.2g}"


def reading_table(folder: Path) -> None:
    print("| mode of the file | is read as | in |\n| --- | --- | --- |")
    for mode, (wanted, image, options) in sources().items():
        row: dict[str, list[str]] = {}
        for kind, extensions in EXTENSIONS.items():
            if content := content_of(image, options, kind):
                row.setdefault(read_as(content, wanted, folder / f"a{extensions[0]}"), []).append(kind)
        for said, kinds in row.items():
            print(f"| {mode} | {said} | {', '.join(kinds)} |")


def writing_table(folder: Path) -> None:
    print(f"\n| picture | {' | '.join(WRITTEN)} |\n" + "| --- " * (1 + len(WRITTEN)) + "|")
    modes = sources()
    for mode in [f"{name}, {depth} bits" for depth in (8, 16) for name in NAMES.values()]:
        values, cells = modes[mode][0], []
        for suffix in WRITTEN:
            path = folder / f"out{suffix}"
            if suffix == ".gif":
                save_frames(path, [values, values[::-1]])
            else:
                aj.save(path, values, quality=100)
            pixels = aj.read(path).pixels
            exact = pixels.dtype == values.dtype and np.array_equal(pixels, values)
            cells.append(f"{NAMES[pixels.shape[2]]} {8 * pixels.dtype.itemsize}{', exact' if exact else ''}")
        print(f"| {mode} | {' | '.join(cells)} |")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        reading_table(Path(name))
        writing_table(Path(name))
