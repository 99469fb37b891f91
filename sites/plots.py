"""The figures of a run, each as the bytes of a PNG: recovery, cross-site matrix, learning curves, sample films.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers; every arm also has a marker of its own.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from sites.verdict import Interval, arm, interval, site_verdict

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
_DPI = 160
_WIDTH_IN = 10.0


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
_LIGHTBOX = "#0d1013"

Results = Mapping[str, Any]


def _drawn(draw: Callable[..., Figure]) -> Callable[..., bytes]:
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


# ---- recovery


@_drawn
def draw_recovery(results: Results, theme: Theme = LIGHT) -> Figure:
    """Per site: from the model as it arrived to the adapted one, with the other arms beneath and the source hospital's level."""
    sites = list(results["sites"].values())
    compact = len(sites) > MANY
    if compact:
        sites.sort(key=_gain, reverse=True)
    row_in = 0.24 if compact else 0.74
    top_in, bottom_in, left_in, right_in = 1.62, 0.62, 2.3, 1.55
    height_in = top_in + bottom_in + row_in * len(sites)
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor=theme.paper)
    box = (left_in / _WIDTH_IN, bottom_in / height_in, 1 - (left_in + right_in) / _WIDTH_IN, row_in * len(sites) / height_in)
    axes = figure.add_axes(box, facecolor=theme.paper)
    low, high = _span(sites, results.get("source"), compact=compact)
    axes.set(xlim=(low, high), ylim=(len(sites) - 0.5, -0.5))
    axes.set_xlabel("AUROC on the site's own held-out patients, mean over findings", color=theme.muted, labelpad=7)
    axes.xaxis.set_major_locator(MultipleLocator(0.05 if high - low < 0.5 else 0.1))
    _quiet(axes, theme)
    axes.set_yticks([])
    across = [-(left_in - 0.25) / (_WIDTH_IN - left_in - right_in), 1 + (right_in - 0.25) / (_WIDTH_IN - left_in - right_in)]
    for edge in [] if compact else np.arange(len(sites) + 1) - 0.5:
        axes.plot(across, [edge] * 2, transform=axes.get_yaxis_transform(), color=theme.line, lw=0.8, clip_on=False, zorder=0)
    _source_level(axes, results.get("source"), theme)
    for y, site in enumerate(sites):
        _dumbbell(axes, y, site, theme, compact=compact)
        _row_words(axes, y, site, theme, compact=compact, left=across[0])
    _headline(figure, results, theme, height_in)
    _arm_legend(
        figure,
        [name for name in ARMS if any(arm(site, name).measured for site in sites) and not (compact and name == "shared")],
        theme,
        height_in,
    )
    return figure


def _dumbbell(axes: Any, y: float, site: Results, theme: Theme, *, compact: bool) -> None:
    base, private = arm(site, "base"), arm(site, "private")
    centre = y if compact else y - 0.16
    if base.measured and private.measured:
        x = np.linspace(base.value, private.value, 65)
        points = np.stack([x, np.full_like(x, centre)], 1)
        ends: list[Any] = [_mixed(theme.arms["base"], theme.paper, 0.8), _mixed(theme.arms["private"], theme.paper, 0.5)]
        pieces: Any = np.stack([points[:-2], points[2:]], 1)  # overlapping, or their edges would show
        colours = LinearSegmentedColormap.from_list("fade", ends)(np.linspace(0, 1, len(pieces)))
        axes.add_collection(LineCollection(pieces, colors=colours, lw=3.5 if compact else 8, zorder=2))
    for lane, name in enumerate(("local", "shared", "pooled")):
        below = centre if compact else y + 0.1 + 0.13 * lane
        if compact and name == "shared":
            continue
        _point(axes, below, arm(site, name), name, theme, size=4.2 if compact else 6, whisker=0 if compact else 1.2)
    _point(axes, centre, base, "base", theme, size=5 if compact else 9, whisker=0 if compact else 1.4, hollow=True)
    _point(axes, centre, private, "private", theme, size=6 if compact else 11.5, whisker=1.1 if compact else 1.8)


def _point(axes: Any, y: float, of: Interval, name: str, theme: Theme, *, size: float, whisker: float, hollow: bool = False) -> None:
    if not of.measured:
        return
    colour = theme.arms[name]
    if whisker and of.bounded:
        axes.plot(
            [of.low, of.high],
            [y, y],
            color=colour if name in ("base", "private") else _mixed(colour, theme.paper, 0.4),
            lw=whisker,
            zorder=3,
            solid_capstyle="butt",
        )
    face = theme.paper if hollow else colour
    edge = colour if hollow or name == "pooled" else theme.paper
    axes.plot(
        [of.value],
        [y],
        MARKERS[name],
        ms=size * (1.6 if name == "pooled" else 1),
        mfc=face,
        mec=edge,
        mew=1.9 if hollow or name == "pooled" else 0.8,
        zorder=5,
    )


def _row_words(axes: Any, y: float, site: Results, theme: Theme, *, compact: bool, left: float) -> None:
    base, private, found = arm(site, "base"), arm(site, "private"), site_verdict(site)
    place = {"transform": axes.get_yaxis_transform(), "va": "center", "clip_on": False}
    patients = (site.get("patients") or {}).get("test")
    change = f"{base.value:.2f} → {private.value:.2f}" if base.measured and private.measured else "not measured"
    if compact:
        axes.text(-0.02, y, _shortened(site["title"], 30), ha="right", color=theme.ink, fontsize=8.5, **place)
        axes.text(1.03, y, f"{change}  {SIGNS[found]}", ha="left", color=theme.ink, fontsize=8.5, **place)
        return
    title = textwrap.wrap(_shortened(site["title"], 46), 24)
    lift = 0.17 if patients else 0.0
    axes.text(
        left,
        y - lift,
        "\n".join(title),
        ha="left",
        color=theme.ink,
        fontsize=11.5 if len(title) < 2 else 10.5,
        fontweight="bold",
        linespacing=1.05,
        **place,
    )
    if patients:
        axes.text(
            left, y + (0.17 if len(title) < 2 else 0.3), f"{patients:,} test patients", ha="left", color=theme.muted, fontsize=9, **place
        )
    axes.text(1.04, y - 0.17, change, ha="left", color=theme.ink, fontsize=11.5, fontweight="bold" if found else "normal", **place)
    axes.text(1.04, y + 0.17, f"{SIGNS[found]} {found or 'no verdict'}", ha="left", color=theme.muted, fontsize=9.5, **place)


def _source_level(axes: Any, source: Results | None, theme: Theme) -> None:
    at = interval((source or {}).get("auroc"))
    if source is None or not at.measured:
        return
    axes.axvline(at.value, color=theme.muted, lw=1.2, ls=(0, (4, 3)), zorder=1)
    if at.bounded:
        axes.axvspan(at.low, at.high, color=theme.muted, alpha=0.07, lw=0, zorder=0)
    low, high = axes.get_xlim()
    right = (at.value - low) / (high - low) > 0.5
    axes.annotate(
        f"{_shortened(source['title'], 40)}, where it was trained: {at.value:.2f}",
        (at.value, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(3 if right else -3, 5),
        textcoords="offset points",
        ha="right" if right else "left",
        color=theme.muted,
        fontsize=9.5,
        annotation_clip=False,
    )


def _headline(figure: Figure, results: Results, theme: Theme, height_in: float) -> None:
    sites, means = results["sites"], results.get("consortium") or {}
    base, private = means.get("base"), means.get("private")
    title = "What adaptation was worth, site by site"
    if base is not None and private is not None and math.isfinite(base) and math.isfinite(private):
        title = f"Adapted without moving an image: mean AUROC {base:.2f} → {private:.2f}"
    figure.text(0.025, 1 - 0.38 / height_in, title, color=theme.ink, fontsize=16, fontweight="bold", va="center")
    where = f"{len(sites)} sites" if len(sites) != 1 else "1 site"
    told = f"{where}, {len(results.get('rounds') or [])} rounds of {results.get('strategy')}; lines are 95 % intervals over patients"
    figure.text(0.025, 1 - 0.7 / height_in, told, color=theme.muted, fontsize=10.5, va="center")


def _arm_legend(figure: Figure, names: Sequence[str], theme: Theme, height_in: float) -> None:
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker=MARKERS[name],
            ms={"base": 8, "private": 10, "pooled": 9}.get(name, 6),
            mfc=theme.paper if name == "base" else theme.arms[name],
            mec=theme.arms[name],
            mew=1.9 if name in ("base", "pooled") else 0.5,
            label=ARM_TITLES[name],
        )
        for name in names
    ]
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0.018, 1 - 1.04 / height_in),
        ncols=5,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=10.5,
        handletextpad=0.2,
        columnspacing=1.5,
        borderpad=0,
    )


def _gain(site: Results) -> float:
    gained = arm(site, "private").value - arm(site, "base").value
    return gained if math.isfinite(gained) else -math.inf


def _span(sites: Sequence[Results], source: Results | None, *, compact: bool) -> tuple[float, float]:
    """The range of AUROC that holds every value drawn, to the next 0.025."""
    shown = [interval((source or {}).get("auroc"))] + [arm(site, name) for site in sites for name in ARMS]
    ends = [end for of in shown for end in ((of.value,) if compact else (of.value, of.low, of.high)) if math.isfinite(end)]
    if not ends:
        return 0.5, 1.0
    low, high = math.floor((min(ends) - 0.005) * 40) / 40, math.ceil((max(ends) + 0.005) * 40) / 40
    return max(low, -0.02), min(high, 1.02)


# ---- cross-site matrix


@_drawn
def draw_cross_site(results: Results, theme: Theme = LIGHT) -> Figure:
    """Trained at row, tested at column; a frame marks a site's own model at home."""
    cross = results["cross_site"]
    rows, columns = list(cross["rows"]), list(cross["columns"])
    values = np.array([[math.nan if each is None else each for each in row] for row in cross["auroc"]], float).reshape(
        len(rows), len(columns)
    )
    compact = len(columns) > MANY
    left_in, top_in, bottom_in, right_in = 2.3, 1.2, 1.5 if compact else 1.15, 1.25
    cell_w = min((_WIDTH_IN - left_in - right_in) / max(len(columns), 1), 1.1)
    cell_h = min(cell_w, 0.24) if compact else min(0.56, cell_w)
    height_in = top_in + bottom_in + cell_h * len(rows)
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor=theme.paper)
    box = (left_in / _WIDTH_IN, bottom_in / height_in, cell_w * len(columns) / _WIDTH_IN, cell_h * len(rows) / height_in)
    axes = figure.add_axes(box, facecolor=theme.paper)
    heat = LinearSegmentedColormap.from_list("heat", list(theme.heat))
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.5, 1.0)
    image = axes.imshow(values, cmap=heat, vmin=low, vmax=max(high, low + 0.01), aspect="auto")
    titles = {name: site["title"] for name, site in results["sites"].items()}
    named = {"base": "as it arrived", "shared": "all, federated", "pooled": "all, pooled"}
    size = 6.5 if compact else 10.5
    axes.set_xticks(
        range(len(columns)),
        [_label(titles.get(name, name), compact) for name in columns],
        rotation=90 if compact else 0,
        fontsize=min(size, 9.5 if len(columns) < 8 else 7.5),
    )
    axes.set_yticks(range(len(rows)), [named.get(name) or _shortened(titles.get(name, name), 30) for name in rows], fontsize=size)
    axes.set_xlabel("tested at", color=theme.muted, labelpad=8)
    axes.annotate("trained at", (0, 1), xycoords="axes fraction", xytext=(-5, 5), textcoords="offset points", ha="right", color=theme.muted)
    _quiet(axes, theme)
    _cells(axes, values, rows, columns, heat, theme, annotated=not compact)
    bar = figure.colorbar(
        image, cax=figure.add_axes(((left_in + cell_w * len(columns) + 0.22) / _WIDTH_IN, box[1], 0.13 / _WIDTH_IN, box[3]))
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, length=0, labelsize=9)
    bar.set_label("AUROC", color=theme.muted)
    figure.text(
        0.025,
        1 - 0.38 / height_in,
        "Trained at row, tested at column",
        color=theme.ink,
        fontsize=16,
        fontweight="bold",
        va="center",
    )
    figure.text(
        0.025,
        1 - 0.68 / height_in,
        "a site's own row is trained there alone; a frame marks home" + ("" if compact else "; bold is best of the column"),
        color=theme.muted,
        va="center",
    )
    return figure


def _cells(
    axes: Any, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], heat: Any, theme: Theme, *, annotated: bool
) -> None:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.5, 1.0)
    for place in np.arange(1, len(columns)) - 0.5:
        axes.axvline(place, color=theme.paper, lw=1.5 if annotated else 0.5)
    for place in np.arange(1, len(rows)) - 0.5:
        own = {rows[int(place - 0.5)] in columns, rows[int(place + 0.5)] in columns}
        axes.axhline(place, color=theme.paper, lw=(6 if len(own) == 2 else 1.5) if annotated else 0.5)
    for (i, j), value in np.ndenumerate(values):
        if rows[i] == columns[j]:
            axes.add_patch(
                Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, fill=False, ec=theme.arms["local"], lw=2.2 if annotated else 0.8, zorder=4)
            )
        if not annotated:
            continue
        shade = _luminance(heat((value - low) / max(high - low, 0.01))) if math.isfinite(value) else _luminance(to_rgb(theme.paper))
        best = math.isfinite(value) and round(value, 2) >= round(float(np.nanmax(values[:, j])), 2)
        axes.text(
            j,
            i,
            f"{value:.2f}" if math.isfinite(value) else "–",
            ha="center",
            va="center",
            color="#ffffff" if shade < 0.179 else "#000000",
            fontsize=11,
            fontweight="bold" if best else "normal",
            zorder=5,
        )


# ---- learning curves


@_drawn
def draw_curves(results: Results, theme: Theme = LIGHT) -> Figure:
    """Small multiples, one per site: AUROC on validation patients after so many rounds, alone and federated."""
    sites = list(results["sites"].values())
    columns = min(len(sites), 3 if len(sites) <= 6 else 4 if len(sites) <= MANY else 7) or 1
    rows = math.ceil(len(sites) / columns) or 1
    compact = len(sites) > MANY
    panel_in, top_in = (1.25, 1.3) if compact else (2.35 if columns < 4 else 2.0, 1.35)
    height_in = top_in + panel_in * rows + 0.45
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor=theme.paper)
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.075,
        right=0.965,
        top=1 - top_in / height_in,
        bottom=0.62 / height_in,
        hspace=0.62 if compact else 0.34,
        wspace=0.18 if compact else 0.14,
    )
    values = [value for site in sites for name in ("local", "shared") for _, value in _curve(site, name)]
    low, high = (min(values), max(values)) if values else (0.5, 1.0)
    pad = max((high - low) * 0.1, 0.01)
    last = max((at for site in sites for name in ("local", "shared") for at, _ in _curve(site, name)), default=1)
    for index, site in enumerate(sites):
        axes = figure.add_subplot(grid[index // columns, index % columns], facecolor=theme.paper)
        axes.set(xlim=(-0.04 * last, max(last, 1) * 1.04), ylim=(low - pad, high + pad))
        axes.set_title(
            _shortened(site["title"], 16 if compact else 34),
            loc="left",
            color=theme.ink,
            fontsize=8 if compact else 10.5,
            fontweight="bold",
            pad=5,
        )
        _panel(axes, site, theme, compact=compact)
        _quiet(axes, theme, labelsize=7 if compact else 9)
        axes.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(sites))
        axes.xaxis.set_major_locator(MaxNLocator(4 if compact else 6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color=theme.line, lw=0.8)
    figure.text(
        0.025, 1 - 0.38 / height_in, "Round by round, alone and together", color=theme.ink, fontsize=16, fontweight="bold", va="center"
    )
    figure.supxlabel("rounds completed", color=theme.muted, fontsize=10.5, y=0.12 / height_in, va="bottom")
    figure.supylabel("AUROC on validation patients", color=theme.muted, fontsize=10.5, x=0.012)
    handles = [
        Line2D([], [], color=theme.arms["local"], marker=MARKERS["local"], ms=5, lw=2, label="alone"),
        Line2D([], [], color=theme.arms["shared"], marker=MARKERS["shared"], ms=5, lw=2, label="federated, the shared adapter"),
        Line2D([], [], color=theme.arms["base"], ls=(0, (1, 1.5)), lw=1.4, label="as the model arrived"),
    ]
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0.018, 1 - 0.74 / height_in),
        ncols=3,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=10.5,
        handletextpad=0.5,
        columnspacing=1.6,
        borderpad=0,
    )
    return figure


def _panel(axes: Any, site: Results, theme: Theme, *, compact: bool) -> None:
    for name in ("local", "shared"):
        curve = _curve(site, name)
        if not curve:
            continue
        rounds, aurocs = zip(*curve, strict=True)
        if name == "shared" or not _curve(site, "shared"):
            axes.axhline(aurocs[0], color=theme.arms["base"], ls=(0, (1, 1.5)), lw=1.2, zorder=1)
        dense = compact or len(rounds) > 15
        axes.plot(
            rounds,
            aurocs,
            color=theme.arms[name],
            lw=1.4 if compact else 2,
            marker="" if dense else MARKERS[name],
            ms=4.5,
            mec=theme.paper,
            mew=0.5,
            zorder=3,
        )
        axes.plot(
            rounds[-1:],
            aurocs[-1:],
            color=theme.arms[name],
            marker=MARKERS[name],
            ms=4 if compact else 6,
            mec=theme.paper,
            mew=0.6,
            zorder=4,
        )


def _curve(site: Results, name: str) -> list[tuple[int, float]]:
    """(rounds completed, AUROC): an entry is the adapter as it was before its round."""
    entries = (site.get("curve") or {}).get(name) or []
    return [
        (int(each["round"]) - 1, float(each["auroc"])) for each in entries if each.get("auroc") is not None and math.isfinite(each["auroc"])
    ]


# ---- sample films


@_drawn
def draw_films(films: Mapping[str, Sequence[Film]], titles: Mapping[str, str]) -> Figure:
    """A lightbox: one column per site, or one film per site where there are many; the same in every theme."""
    shown = [(titles.get(name, name), list(sheet)) for name, sheet in films.items() if len(sheet)]
    many = len(shown) > 8
    columns = (min(len(shown), 10) if many else len(shown)) or 1
    bands = math.ceil(len(shown) / columns) if many else max((min(len(sheet), 4) for _, sheet in shown), default=1)
    gap_in, title_in, top_in = 0.07, 0.34 if many else 0.0, 0.3 if many else 0.82
    cell_in = min((_WIDTH_IN - 0.5 - gap_in * (columns - 1)) / columns, 2.2)
    caption_in = 0.17 if any(film.caption for _, sheet in shown for film in sheet) and not many else 0.0
    height_in = top_in + bands * (cell_in + gap_in + title_in + caption_in) + 0.2
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor=_LIGHTBOX)
    start_in = (_WIDTH_IN - columns * cell_in - (columns - 1) * gap_in) / 2
    for index, (title, sheet) in enumerate(shown):
        for band, film in enumerate(sheet[: 1 if many else 4]):
            x_in = start_in + (index % columns) * (cell_in + gap_in)
            y_in = top_in + (index // columns if many else band) * (cell_in + gap_in + title_in + caption_in) + title_in
            axes = figure.add_axes((x_in / _WIDTH_IN, 1 - (y_in + cell_in) / height_in, cell_in / _WIDTH_IN, cell_in / height_in))
            axes.imshow(film.image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            axes.set_axis_off()
            if caption_in:
                room = int(cell_in / 0.068)
                figure.text(
                    (x_in + cell_in / 2) / _WIDTH_IN,
                    1 - (y_in + cell_in + 0.1) / height_in,
                    _shortened(film.caption, room),
                    color="#aab4bd",
                    fontsize=8,
                    ha="center",
                    va="center",
                )
            if band == 0:
                width = max(int(cell_in / (0.085 if many else 0.092)), 6)
                words = "\n".join(textwrap.wrap(_shortened(title, (2 if many else 3) * width), width)[: 2 if many else 3])
                figure.text(
                    (x_in + cell_in / 2) / _WIDTH_IN,
                    1 - (y_in - 0.08) / height_in,
                    words,
                    color="#f2f5f7",
                    fontsize=7.5 if many else 9.5,
                    fontweight="bold",
                    ha="center",
                    va="bottom",
                    linespacing=1.05,
                )
    return figure


# ---- small things


def _quiet(axes: Any, theme: Theme, labelsize: float = 10) -> None:
    """No frame, muted ticks."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=theme.ink, length=0, pad=5)
    axes.tick_params(axis="both", labelcolor=theme.ink)
    if not axes.images:
        axes.tick_params(labelsize=labelsize, labelcolor=theme.muted)
        axes.grid(axis="x", color=theme.line, lw=0.8)
        axes.set_axisbelow(True)


def _label(title: str, compact: bool) -> str:
    return _shortened(title, 24) if compact else "\n".join(textwrap.wrap(_shortened(title, 36), 12))


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(length - 1, 1)].rstrip() + "…"


def _mixed(colour: str, paper: str, share: float) -> tuple[float, float, float]:
    """`colour` with `share` of the paper in it: opaque, so that overlaps show no seams."""
    red, green, blue = (a * (1 - share) + b * share for a, b in zip(to_rgb(colour), to_rgb(paper), strict=True))
    return red, green, blue


def _luminance(colour: Sequence[float]) -> float:
    """WCAG 2.2 relative luminance, 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
