"""Learning curves, one small panel per site."""

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sites.plots._style import DPI, LIGHT, MANY, MARKERS, WIDTH_IN, Results, Theme, drawn, quiet, shortened
from sites.verdict import measure, measure_title


@drawn
def draw_curves(results: Results, theme: Theme = LIGHT) -> Figure:
    """Small multiples, one per site: the measure on validation patients after so many rounds, alone and federated."""
    sites = list(results["sites"].values())
    columns = min(len(sites), 3 if len(sites) <= 6 else 4 if len(sites) <= MANY else 7) or 1
    rows = math.ceil(len(sites) / columns) or 1
    compact = len(sites) > MANY
    panel_in, top_in = (1.25, 1.3) if compact else (2.35 if columns < 4 else 2.0, 1.35)
    height_in = top_in + panel_in * rows + 0.45
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=theme.paper)
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
            shortened(site["title"], 16 if compact else 34),
            loc="left",
            color=theme.ink,
            fontsize=8 if compact else 10.5,
            fontweight="bold",
            pad=5,
        )
        _panel(axes, site, theme, compact=compact)
        quiet(axes, theme, labelsize=7 if compact else 9)
        axes.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(sites))
        axes.xaxis.set_major_locator(MaxNLocator(4 if compact else 6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color=theme.line, lw=0.8)
    figure.text(
        0.025, 1 - 0.38 / height_in, "Round by round, alone and together", color=theme.ink, fontsize=16, fontweight="bold", va="center"
    )
    figure.supxlabel("rounds completed", color=theme.muted, fontsize=10.5, y=0.12 / height_in, va="bottom")
    figure.supylabel(f"{measure_title(results)} on validation patients", color=theme.muted, fontsize=10.5, x=0.012)
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
        rounds, values = zip(*curve, strict=True)
        if name == "shared" or not _curve(site, "shared"):
            axes.axhline(values[0], color=theme.arms["base"], ls=(0, (1, 1.5)), lw=1.2, zorder=1)
        dense = compact or len(rounds) > 15
        axes.plot(
            rounds,
            values,
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
            values[-1:],
            color=theme.arms[name],
            marker=MARKERS[name],
            ms=4 if compact else 6,
            mec=theme.paper,
            mew=0.6,
            zorder=4,
        )


def _curve(site: Results, name: str) -> list[tuple[int, float]]:
    """(rounds completed, measure): an entry is the adapter as it was before its round."""
    entries = (site.get("curve") or {}).get(name) or []
    told = [(int(each["round"]) - 1, each.get(measure(site))) for each in entries]
    return [(at, float(value)) for at, value in told if value is not None and math.isfinite(value)]
