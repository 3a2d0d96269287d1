"""The weave against its definition, on noise, on patterns, and through run_eval's measurement."""

import numpy as np
import pytest
import skimage.data

from arbiscale_jax import UserError
from arbiscale_jax.evaluation import super_resolution, weave

RNG = np.random.default_rng(0)
PHOTO = skimage.data.astronaut()[:256, 100:420]
STRIPES = (3 * np.sin(2 * np.pi * np.arange(320) / 4 + 0.7))[None, :, None]  # a period of 4 pixels, faint


def to_uint8(image):
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def by_definition(pairs) -> float:
    """The weave of (output, truth) pairs in loops over tiles, rings and pixels."""
    total, n = np.zeros((32, 32)), 0
    rings = [
        [(y, x) for y in range(32) for x in range(32) if r - 0.5 <= np.hypot(y - 16, x - 16) < r + 0.5]
        for r in range(4, 16)
    ]
    hann = np.array([[np.hanning(32)[y] * np.hanning(32)[x] for x in range(32)] for y in range(32)])
    y, x = np.indices((32, 32)).reshape(2, -1)
    for output, truth in pairs:
        grey, even = output.mean(2), truth.mean(2)
        corners = [(i, j) for i in range(0, len(grey) - 31, 32) for j in range(0, grey.shape[1] - 31, 32)]
        corners.sort(key=lambda c: even[c[0] : c[0] + 32, c[1] : c[1] + 32].std())
        for i, j in corners[: max(3, len(corners) // 2)]:
            tile = grey[i : i + 32, j : j + 32]
            plane = np.linalg.lstsq(np.stack([y, x, np.ones(1024)], 1), tile.ravel(), rcond=None)[0]
            rest = (tile - (plane[0] * y + plane[1] * x + plane[2]).reshape(32, 32)) * hann
            log_power = np.log(np.abs(np.fft.fftshift(np.fft.fft2(rest))) ** 2 + 1e-3)
            n += 1
            for ring in rings:
                middle = np.median([log_power[p] for p in ring])
                for p in ring:
                    total[p] += log_power[p] - middle
    sums = [np.array([total[p] for p in ring]) for ring in rings]
    return max(np.exp((values.max() - np.median(values)) / n) for values in sums)


def of(*pairs) -> float:
    spectra = weave.Spectra()
    for output, truth in pairs:
        spectra.add("a", output, truth)
    return spectra.weaves()["a"]


def test_the_weave_equals_its_definition_over_pictures_of_any_size():
    noisy = to_uint8(PHOTO + RNG.normal(0, 20, PHOTO.shape))
    pairs = [
        (noisy[:100, :140], PHOTO[:100, :140]),
        (PHOTO[50:, 9:90], PHOTO[50:, 9:90]),
        (noisy[:33, :70], PHOTO[:33, :70]),
    ]
    assert of(*pairs) == pytest.approx(by_definition(pairs), rel=1e-9)
    total, n = weave.ring_spectrum(*pairs[0])
    assert total.shape == (32, 32) and n == 6 and weave.ring_spectrum(*pairs[2])[1] == 2  # all that it has
    assert weave.weave(total, n) == pytest.approx(by_definition(pairs[:1]), rel=1e-9)


def test_noise_and_photographs_have_little_and_stripes_much():
    noise = to_uint8(RNG.normal(128, 20, PHOTO.shape))
    plain, striped = of((PHOTO, PHOTO)), of((to_uint8(PHOTO + STRIPES), PHOTO))
    few, many = of((noise, noise)), of(*[(to_uint8(RNG.normal(128, 20, PHOTO.shape)), PHOTO) for _ in range(8)])
    assert 1 < many < few < 2.5 and plain < 3  # one small picture leaves more to chance
    assert striped > 20 > 5 * plain


def test_spectra_keep_their_keys_apart():
    spectra = weave.Spectra()
    spectra.add(("a", 4), PHOTO, PHOTO)
    spectra.add(("b", 4), to_uint8(PHOTO + STRIPES), PHOTO)
    assert spectra.weaves()["a", 4] == of((PHOTO, PHOTO)) < spectra.weaves()["b", 4]
    assert weave.Spectra().weaves() == {}


def test_a_truth_without_a_tile_is_refused():
    super_resolution.check_size("a", 4, (32, 99), None, ["weave"])
    with pytest.raises(UserError, match="a at scale 4 has a truth of 99 x 31 pixels, too few for weave .* 32 per side"):
        super_resolution.check_size("a", 4, (99, 31), None, ["weave"])
