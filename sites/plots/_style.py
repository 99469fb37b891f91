"""What the figures share: arms and their marks, colours for any colour vision (Okabe and Ito 2008), small helpers."""

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

ARMS = ("base", "local", "shared", "private", "pooled")
ARM_TITLES = {
    "base": "as it arrived",
    "local": "alone",
    "shared": "federated",
    "private": "federated + private",
    "pooled": "pooled upper bound",
}
MARKERS = {"base": "o", "local": "s", "shared": "D", "private": "o", "pooled": "|"}
SIGNS = {"better": "▲", "no different": "●", "worse": "▼", None: "–"}

MANY = 12  # sites; above this the layouts are compact
DPI = 160
WIDTH_IN = 10.0


@dataclass(frozen=True, kw_only=True)
class Film:
    image: NDArray[np.uint8]
    """(H, W)."""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Theme:
    paper: str
    ink: str
    muted: str
    line: str
    arms: Mapping[str, str]
    heat: tuple[str, str, str]


LIGHT = Theme(
    paper="#ffffff",
    ink="#16202a",
    muted="#5b6874",
    line="#dfe4e8",
    arms={"base": "#6e7780", "local": "#e69f00", "shared": "#56b4e9", "private": "#0072b2", "pooled": "#16202a"},
    heat=("#f7fafc", "#a9d3ee", "#3d97d3"),
)
DARK = Theme(
    paper="#161c22",
    ink="#e8edf1",
    muted="#a0acb7",
    line="#303a43",
    arms={"base": "#98a3ad", "local": "#e69f00", "shared": "#8fd0f5", "private": "#2f9fe0", "pooled": "#e8edf1"},
    heat=("#1b242c", "#1d4d6d", "#1f78b4"),
)
LIGHTBOX = "#0d1013"

Results = Mapping[str, Any]


def drawn(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Draws under the house's settings; titles are other people's words, so none is read as TeX and no missing glyph is a warning."""

    @wraps(draw)
    def png(*args: Any, **kwargs: Any) -> bytes:
        # The font that comes with matplotlib: the same figure on every machine.
        with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10.5, "text.parse_math": False}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure, stream = draw(*args, **kwargs), io.BytesIO()
            FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
        return stream.getvalue()

    return png


def quiet(axes: Any, theme: Theme, labelsize: float = 10) -> None:
    """No frame, muted ticks."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=theme.ink, length=0, pad=5)
    axes.tick_params(axis="both", labelcolor=theme.ink)
    if not axes.images:
        axes.tick_params(labelsize=labelsize, labelcolor=theme.muted)
        axes.grid(axis="x", color=theme.line, lw=0.8)
        axes.set_axisbelow(True)


def label_of(title: str, compact: bool) -> str:
    return shortened(title, 24) if compact else "\n".join(textwrap.wrap(shortened(title, 36), 12))


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(length - 1, 1)].rstrip() + "…"


def mixed(colour: str, paper: str, share: float) -> tuple[float, float, float]:
    """`colour` with `share` of the paper in it: opaque, so that overlaps show no seams."""
    red, green, blue = (a * (1 - share) + b * share for a, b in zip(to_rgb(colour), to_rgb(paper), strict=True))
    return red, green, blue


def luminance(colour: Sequence[float]) -> float:
    """WCAG 2.2 relative luminance, 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
