"""What a department's equipment makes of an attenuation map: scatter, dose, sharpness, detector response, processing, markers.

In the order in which it happens to a real film: beam, scatter, quanta, detector, look-up table, vendor's processing, display, lettering.
Where patient and tube stand (AP or PA, field of view) is decided before, by `population.ProjectionConfig`, so that masks stay true.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from rainhill.config import Fraction
from rainhill.toml import Section
from sites.cases import Exposure, random
from sites.geometry import Real
from sites.texture import blur

BITS = 12
_MOST = 2**BITS - 1
_RANGE = 5.0  # attenuation that the look-up table spreads over its output
_CHUNK = 8


class ShiftConfig(Section):
    """One department's equipment; the defaults are a plain digital detector. Lengths are in pixels of a film 192 wide."""

    scatter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Fraction of the free beam that reaches the detector as scatter behind tissue; it flattens what is dense."""
    dose: float = Field(default=30000.0, gt=0)
    """Quanta per pixel of the free beam; noise falls with its square root."""
    blur_px: float = Field(default=0.5, ge=0, le=6)
    """Unsharpness of detector and focus (the MTF) as a Gaussian's sigma."""
    response: Literal["log", "gamma", "film"] = "log"
    """Look-up table from log exposure to grey: straight, a power, or the S of a film's characteristic curve."""
    gamma: float = Field(default=1.0, gt=0.2, lt=5)
    """Exponent of a "gamma" response; over 1 darkens the lungs."""
    film_slope: float = Field(default=7.0, gt=0.5, lt=30)
    """Steepness of a "film" response, per unit of the table's range."""
    film_middle: Fraction = 0.45
    """Where on the table's range the film is steepest: higher shows the mediastinum, lower the lungs."""
    equalise: Fraction = 0.0
    """Dynamic range compression: fraction of the broad light and dark that is taken out."""
    detail: float = Field(default=0.0, ge=-0.9, le=5)
    """Multiscale enhancement: extra gain of structures of 2 to 8 px, such as vessels and ribs."""
    edge: float = Field(default=0.0, ge=0, le=5)
    """Unsharp masking: extra gain of what is finer than `edge_px`."""
    edge_px: float = Field(default=1.5, gt=0.3, le=10)
    window: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = (0.0, 100.0)
    """Percentiles of the film at which display saturates to black and to white."""
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    collimation: float = Field(default=0.0, ge=0, lt=0.4)
    """Mean width of the unexposed border on each edge, in film widths."""
    marker: Literal["none", "letter", "view", "plate"] = "letter"
    """Burned in: nothing; a side letter; letter with the view, "PORTABLE" at the bedside; a name plate besides."""
    marker_scale: float = Field(default=1.0, gt=0.3, le=3)


def apply(attenuation: Real, shift: ShiftConfig, exposures: Sequence[Exposure]) -> NDArray[np.uint16]:
    """(N, H, W) attenuation -> (N, H, W) stored values of 12 bits; everything random about a film comes from its exposure's seed."""
    stored = np.empty(attenuation.shape, np.uint16)
    for start in range(0, len(exposures), _CHUNK):
        part = slice(start, start + _CHUNK)
        stored[part] = _expose(attenuation[part], shift, exposures[part])
    return stored


def _expose(attenuation: Real, shift: ShiftConfig, exposures: Sequence[Exposure]) -> NDArray[np.uint16]:
    generators = [random(*exposure.seed, 4) for exposure in exposures]
    scale = attenuation.shape[-1] / 192
    beam = np.exp(-attenuation)
    if shift.scatter:
        beam = beam + np.float32(shift.scatter) * broad(np.minimum(beam, np.float32(0.35)), 14 * scale)
    dose = np.array([shift.dose * np.exp(0.2 * rng.standard_normal()) for rng in generators], np.float32)[:, None, None]
    noise = np.stack([rng.standard_normal(beam.shape[1:], dtype=np.float32) for rng in generators])
    beam = beam + noise * np.sqrt(beam / (dose / np.float32(scale * scale)))
    if shift.blur_px:
        beam = blur(beam, shift.blur_px * scale)
    signal = -np.log(np.maximum(beam, np.float32(0.0005))) / np.float32(_RANGE)
    grey = process(respond(signal, shift), shift, scale)
    grey = np.stack(
        [
            _letter(_collimate(film, shift, rng), shift, exposure, rng)
            for film, exposure, rng in zip(grey, exposures, generators, strict=True)
        ]
    )
    values = np.rint(grey * _MOST).astype(np.uint16)
    # (0028,0004): MONOCHROME1 stores the lowest value as the brightest, PS3.3 C.7.6.3.1.2
    return values if shift.photometric == "MONOCHROME2" else np.asarray(_MOST - values, np.uint16)


def respond(signal: Real, shift: ShiftConfig) -> Real:
    """Log exposure in units of the table's range -> grey in [0, 1], bone bright; never falls."""
    x = np.clip(signal, 0, 1.1) / np.float32(1.1)
    if shift.response == "gamma":
        return np.asarray(np.power(x, np.float32(shift.gamma)), np.float32)
    if shift.response == "film":
        curve = np.tanh(np.float32(0.5 * shift.film_slope) * (x - np.float32(shift.film_middle)))
        low, high = np.tanh(0.5 * shift.film_slope * np.array([-shift.film_middle, 1 - shift.film_middle]))
        return np.asarray((curve - np.float32(low)) / np.float32(high - low), np.float32)
    return np.asarray(x, np.float32)


def process(grey: Real, shift: ShiftConfig, scale: float) -> Real:
    """The vendor's contrast processing and the display window -> [0, 1]."""
    if shift.equalise:
        base = broad(grey, 16 * scale)
        grey = grey - np.float32(shift.equalise) * (base - base.mean(axis=(1, 2), keepdims=True))
    if shift.detail:
        grey = grey + np.float32(shift.detail) * (blur(grey, 1.0 * scale) - broad(grey, 5 * scale))
    if shift.edge:
        grey = grey + np.float32(shift.edge) * (grey - blur(grey, shift.edge_px * scale))
    low, high = np.percentile(grey[:, ::3, ::3], shift.window, axis=(1, 2)).astype(np.float32)[:, :, None, None]
    return np.asarray(np.clip((grey - low) / np.maximum(high - low, np.float32(1e-6)), 0, 1), np.float32)


def broad(maps: Real, sigma_px: float) -> Real:
    """A wide Gaussian, worked out on the film in 48 x 48 blocks."""
    size = maps.shape[-1]
    block = max(1, size // 48)
    cells = size // block
    small = maps[:, : cells * block, : cells * block].reshape(len(maps), cells, block, cells, block).mean(axis=(2, 4), dtype=np.float32)
    small = blur(small, sigma_px / block)
    at = np.clip((np.arange(size, dtype=np.float32) + np.float32(0.5)) / block - np.float32(0.5), 0, cells - 1)
    low = np.minimum(at.astype(np.intp), cells - 2)
    part = at - low
    rows = small[:, low] * (1 - part)[None, :, None] + small[:, low + 1] * part[None, :, None]
    return np.asarray(rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part, np.float32)


def _collimate(film: Real, shift: ShiftConfig, rng: np.random.Generator) -> Real:
    if not shift.collimation:
        return film
    size = film.shape[-1]
    left, right, top, bottom = (int(size * shift.collimation * 2 * share) for share in rng.random(4))
    shut = np.zeros_like(film)
    shut[top : size - bottom, left : size - right] = film[top : size - bottom, left : size - right]
    return shut


def _letter(film: Real, shift: ShiftConfig, exposure: Exposure, rng: np.random.Generator) -> Real:
    """Side letters stand on the film's own side: the patient's left is on the right."""
    if shift.marker == "none":
        return film
    size, height = film.shape[-1], int(film.shape[-1] * 0.065 * shift.marker_scale)
    letter = "L" if rng.random() < 0.6 else "R"
    x, y = (0.86 if letter == "L" else 0.03) + 0.05 * rng.random(), 0.05 + 0.18 * rng.random()
    film = _stamp(film, letter, int(x * size), int(y * size), height)
    if shift.marker in ("view", "plate"):
        word = exposure.view if shift.marker == "plate" or exposure.view == "PA" else "AP PORTABLE"
        film = _stamp(film, word, int((0.03 + 0.05 * rng.random()) * size), int(0.93 * size), int(0.75 * height))
    if shift.marker == "plate":
        wide, tall = int(0.26 * size * shift.marker_scale), int(0.10 * size * shift.marker_scale)
        film = film.copy()
        film[:tall, :wide] = np.float32(0.88)
        film = _stamp(film, f"{rng.integers(0, 1000):03d} {rng.integers(0, 1000)}", 3, int(0.25 * tall), int(0.5 * tall), ink=0.15)
    return film


def _stamp(film: Real, text: str, x: int, y: int, height: int, ink: float = 1.0) -> Real:
    glyphs = _glyphs(text, max(height, 6))
    rows, columns = min(glyphs.shape[0], film.shape[0] - y), min(glyphs.shape[1], film.shape[1] - x)
    film = film.copy()
    under = film[y : y + rows, x : x + columns]
    film[y : y + rows, x : x + columns] = under + glyphs[:rows, :columns] * (np.float32(ink) - under)
    return film


@lru_cache(maxsize=4096)
def _glyphs(text: str, height: int) -> Real:
    font = ImageFont.load_default(height)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left) + 1, int(bottom - top) + 1))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    return np.asarray(image, np.float32) / 255
