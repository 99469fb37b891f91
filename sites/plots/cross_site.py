"""Trained at row, tested at column."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sites.plots._style import DPI, LIGHT, MANY, WIDTH_IN, Results, Theme, drawn, label_of, luminance, quiet, shortened
from sites.verdict import measure, measure_title


@drawn
def draw_cross_site(results: Results, theme: Theme = LIGHT) -> Figure:
    """Trained at row, tested at column; a frame marks a site's own model at home."""
    cross = results["cross_site"]
    rows, columns = list(cross["rows"]), list(cross["columns"])
    values = np.array([[math.nan if each is None else each for each in row] for row in cross[measure(results)]], float).reshape(
        len(rows), len(columns)
    )
    compact = len(columns) > MANY
    left_in, top_in, bottom_in, right_in = 2.3, 1.2, 1.5 if compact else 1.15, 1.25
    cell_w = min((WIDTH_IN - left_in - right_in) / max(len(columns), 1), 1.1)
    cell_h = min(cell_w, 0.24) if compact else min(0.56, cell_w)
    height_in = top_in + bottom_in + cell_h * len(rows)
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=theme.paper)
    box = (left_in / WIDTH_IN, bottom_in / height_in, cell_w * len(columns) / WIDTH_IN, cell_h * len(rows) / height_in)
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
        [label_of(titles.get(name, name), compact) for name in columns],
        rotation=90 if compact else 0,
        fontsize=min(size, 9.5 if len(columns) < 8 else 7.5),
    )
    axes.set_yticks(range(len(rows)), [named.get(name) or shortened(titles.get(name, name), 30) for name in rows], fontsize=size)
    axes.set_xlabel("tested at", color=theme.muted, labelpad=8)
    axes.annotate("trained at", (0, 1), xycoords="axes fraction", xytext=(-5, 5), textcoords="offset points", ha="right", color=theme.muted)
    quiet(axes, theme)
    _cells(axes, values, rows, columns, heat, theme, annotated=not compact)
    bar = figure.colorbar(
        image, cax=figure.add_axes(((left_in + cell_w * len(columns) + 0.22) / WIDTH_IN, box[1], 0.13 / WIDTH_IN, box[3]))
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, length=0, labelsize=9)
    bar.set_label(measure_title(results), color=theme.muted)
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
        shade = luminance(heat((value - low) / max(high - low, 0.01))) if math.isfinite(value) else luminance(to_rgb(theme.paper))
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
