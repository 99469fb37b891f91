"""Strategies side by side: at each hospital and over all, what each strategy is worth, between training alone and the pooled bound."""

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sites.plots._style import DPI, LIGHT, WIDTH_IN, Results, Theme, drawn, quiet, shortened
from sites.verdict import interval, measure_title, over_findings

COLUMNS = 3


@drawn
def draw_comparison(comparison: Results, theme: Theme = LIGHT) -> Figure:
    """`comparison` is the contents of comparison.json."""
    panels = [("mean over hospitals", comparison["mean"])] + [
        (f"{site['title']}, {site['patients']} patients", site) for site in comparison["sites"].values()
    ]
    names = list(comparison["strategies"])
    rows = math.ceil(len(panels) / COLUMNS)
    panel_in = 0.75 + 0.24 * len(names)
    height_in = 1.25 + rows * panel_in
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=theme.paper)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.2, right=0.985, top=1 - 0.95 / height_in, bottom=0.55 / height_in, wspace=0.1, hspace=0.75 / panel_in)
    for place, axes in enumerate(grid.flat):
        if place < len(panels):
            _panel(axes, *panels[place], names, theme, labelled=place % COLUMNS == 0)
        else:
            axes.set_visible(False)
    seeds = len(comparison["seeds"])
    title = shortened(comparison["title"] or comparison["name"], 60)
    figure.text(0.012, 1 - 0.3 / height_in, f"{title}: strategies compared", color=theme.ink, fontsize=14, weight="bold", va="center")
    marks = [
        Line2D([], [], color=theme.arms["private"], marker="o", lw=1.6, label="federated + private, 95 % interval"),
        Line2D([], [], color=theme.arms["shared"], marker="D", lw=0, markersize=5, label="federated"),
        Line2D([], [], color=theme.arms["base"], lw=1.2, ls=":", label="as it arrived"),
        Line2D([], [], color=theme.arms["local"], lw=1.2, ls="--", label="alone"),
        Line2D([], [], color=theme.arms["pooled"], lw=1.2, label="pooled"),
    ]
    figure.legend(
        handles=marks,
        loc="center left",
        bbox_to_anchor=(0.006, 1 - 0.62 / height_in),
        ncols=5,
        frameon=False,
        labelcolor=theme.muted,
        fontsize=9,
    )
    told = f"{measure_title(comparison)}, {over_findings(comparison)}" + (f", mean over {seeds} seeds" if seeds > 1 else "")
    figure.text(0.6, 0.16 / height_in, told, color=theme.muted, ha="center", fontsize=10)
    return figure


def _panel(axes: Any, title: str, entry: Results, names: list[str], theme: Theme, *, labelled: bool) -> None:
    axes.set_facecolor(theme.paper)
    quiet(axes, theme, labelsize=8.5)
    axes.set_title(shortened(title, 38), color=theme.ink, fontsize=9, loc="left", pad=5)
    for arm, style in (("base", ":"), ("local", "--"), ("pooled", "-")):
        of = interval(entry[arm])
        if of.measured:
            axes.axvline(of.value, color=theme.arms[arm], lw=1.2, ls=style, zorder=1)
    for y, name in enumerate(names):
        private, shared = interval(entry["strategies"][name]["private"]), interval(entry["strategies"][name]["shared"])
        if private.bounded:
            axes.plot([private.low, private.high], [y, y], color=theme.arms["private"], lw=1.6, zorder=2)
        axes.plot(shared.value, y, marker="D", color=theme.arms["shared"], markersize=5, zorder=3)
        axes.plot(private.value, y, marker="o", color=theme.arms["private"], markersize=7, zorder=4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [shortened(name, 26) for name in names] if labelled else [""] * len(names))
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
