"""Per site, from the model as it arrived to the adapted one."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from sites.plots._style import ARM_TITLES, ARMS, DPI, LIGHT, MANY, MARKERS, SIGNS, WIDTH_IN, Results, Theme, drawn, mixed, quiet, shortened
from sites.verdict import Interval, arm, interval, measure, measure_title, over_findings, site_verdict


@drawn
def draw_recovery(results: Results, theme: Theme = LIGHT) -> Figure:
    """Per site: from the model as it arrived to the adapted one, with the other arms beneath and the source hospital's level."""
    sites = list(results["sites"].values())
    compact = len(sites) > MANY
    if compact:
        sites.sort(key=_gain, reverse=True)
    row_in = 0.24 if compact else 0.74
    top_in, bottom_in, left_in, right_in = 1.62, 0.62, 2.3, 1.55
    height_in = top_in + bottom_in + row_in * len(sites)
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=theme.paper)
    box = (left_in / WIDTH_IN, bottom_in / height_in, 1 - (left_in + right_in) / WIDTH_IN, row_in * len(sites) / height_in)
    axes = figure.add_axes(box, facecolor=theme.paper)
    low, high = _span(sites, results, compact=compact)
    axes.set(xlim=(low, high), ylim=(len(sites) - 0.5, -0.5))
    axes.set_xlabel(_axis(results), color=theme.muted, labelpad=7)
    axes.xaxis.set_major_locator(MultipleLocator(0.05 if high - low < 0.5 else 0.1))
    quiet(axes, theme)
    axes.set_yticks([])
    across = [-(left_in - 0.25) / (WIDTH_IN - left_in - right_in), 1 + (right_in - 0.25) / (WIDTH_IN - left_in - right_in)]
    for edge in [] if compact else np.arange(len(sites) + 1) - 0.5:
        axes.plot(across, [edge] * 2, transform=axes.get_yaxis_transform(), color=theme.line, lw=0.8, clip_on=False, zorder=0)
    _source_level(axes, results, theme)
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
        ends: list[Any] = [mixed(theme.arms["base"], theme.paper, 0.8), mixed(theme.arms["private"], theme.paper, 0.5)]
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
            color=colour if name in ("base", "private") else mixed(colour, theme.paper, 0.4),
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
        axes.text(-0.02, y, shortened(site["title"], 30), ha="right", color=theme.ink, fontsize=8.5, **place)
        axes.text(1.03, y, f"{change}  {SIGNS[found]}", ha="left", color=theme.ink, fontsize=8.5, **place)
        return
    title = textwrap.wrap(shortened(site["title"], 46), 24)
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


def _source_level(axes: Any, results: Results, theme: Theme) -> None:
    source = results.get("source")
    at = interval((source or {}).get(measure(results)))
    if source is None or not at.measured:
        return
    axes.axvline(at.value, color=theme.muted, lw=1.2, ls=(0, (4, 3)), zorder=1)
    if at.bounded:
        axes.axvspan(at.low, at.high, color=theme.muted, alpha=0.07, lw=0, zorder=0)
    low, high = axes.get_xlim()
    right = (at.value - low) / (high - low) > 0.5
    axes.annotate(
        f"{shortened(source['title'], 40)}, where it was trained: {at.value:.2f}",
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
        title = f"Adapted without moving an image: mean {measure_title(results)} {base:.2f} → {private:.2f}"
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


def _axis(results: Results) -> str:
    return f"{measure_title(results)} on the site's own held-out patients, {over_findings(results)}"


def _gain(site: Results) -> float:
    gained = arm(site, "private").value - arm(site, "base").value
    return gained if math.isfinite(gained) else -math.inf


def _span(sites: Sequence[Results], results: Results, *, compact: bool) -> tuple[float, float]:
    """The range that holds every value drawn, to the next 0.025."""
    shown = [interval((results.get("source") or {}).get(measure(results)))] + [arm(site, name) for site in sites for name in ARMS]
    ends = [end for of in shown for end in ((of.value,) if compact else (of.value, of.low, of.high)) if math.isfinite(end)]
    if not ends:
        return 0.5, 1.0
    low, high = math.floor((min(ends) - 0.005) * 40) / 40, math.ceil((max(ends) + 0.005) * 40) / 40
    return max(low, -0.02), min(high, 1.02)
