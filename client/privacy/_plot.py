"""Epsilon spent, charge by charge, against the budget."""

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from client.chain import Event
from client.privacy import budget
from client.privacy.accountant import NEIGHBOURS, UNIT
from client.privacy.events import Charged
from client.privacy.statement import Snapshot

INK, MUTED, LINE, BAND, EVERYTHING, MOST, LIMIT = "#16202a", "#5b6874", "#dfe4e8", "#f4f7f9", "#bfe0f6", "#0072b2", "#d55e00"
POINTS = 24
"""Charges at which epsilon is worked out, besides the first and last of each run."""
MANY = 8  # runs; above this only the first of them are named


def draw(site: str, ledger: Snapshot, *, limit: float | None, delta: float) -> bytes:
    """A PNG."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10.5, "text.parse_math": False}):
        figure, stream = _figure(site, ledger, limit, delta), io.BytesIO()
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _figure(site: str, ledger: Snapshot, limit: float | None, delta: float) -> Figure:
    charges = [(at, event) for at, event in enumerate(ledger.events()) if isinstance(event, Charged)]
    places = _places([event.run for _, event in charges])
    spent = [_spent(ledger.events()[: charges[place][0] + 1], delta) for place in places]
    figure = Figure(figsize=(10, 5.2), dpi=160, facecolor="white")
    axes = figure.add_axes((0.072, 0.135, 0.903, 0.635))
    top = 1.12 * max([limit or 0.0, *(everything for everything, _ in spent), 0.01])
    axes.set(xlim=(0, max(len(charges), 1) * 1.005), ylim=(0, top))
    _bands(axes, [event.run for _, event in charges], [ledger.entries[at].time[:10] for at, _ in charges])
    _curves(axes, places, spent)
    if limit is not None:
        axes.axhline(limit, color=LIMIT, lw=1.6, zorder=4)
        axes.annotate(
            f"budget {limit:g}",
            (1, limit),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            color=LIMIT,
        )
    _quiet(axes)
    figure.text(0.018, 0.945, f"{site}: what its patients have spent", color=INK, fontsize=16, fontweight="bold", va="center")
    figure.text(0.018, 0.885, f"unit: {UNIT}; neighbouring data sets: {NEIGHBOURS}; delta {delta:g}", color=MUTED, va="center")
    return figure


def _places(runs: Sequence[str]) -> list[int]:
    """Which charges are worked out: evenly spread ones, and those where a run begins or ends."""
    even = np.linspace(0, max(len(runs) - 1, 0), min(POINTS, len(runs))).round().astype(int).tolist()
    turns = [at for at in range(1, len(runs)) if runs[at] != runs[at - 1]]
    return sorted({*even, *turns, *(at - 1 for at in turns)})


def _spent(events: Sequence[Event], delta: float) -> tuple[float, float]:
    """Of a patient who took part in everything until then, and of the one who has spent most."""
    until = Snapshot(parsed=tuple(events))
    return budget.spent(budget.site_history(until), delta), budget.spent(budget.most_spent(budget.histories(until), delta), delta)


def _curves(axes: Any, places: Sequence[int], spent: Sequence[tuple[float, float]]) -> None:
    at = [0, *(place + 1 for place in places)]
    # The bound for everything lies under the patient's own, and stays to be seen where they are the same.
    for column, colour, label, width in (
        (0, EVERYTHING, "had one patient been in every round of every run", 6),
        (1, MOST, "the patient who has spent most", 2),
    ):
        values = [0.0, *(pair[column] for pair in spent)]
        axes.plot(at, values, color=colour, lw=width, label=label, zorder=2 + column, solid_capstyle="round", solid_joinstyle="round")
    axes.plot(at[-1:], [spent[-1][1] if spent else 0.0], color=MOST, marker="o", ms=7, mec="white", mew=1, zorder=5)
    if spent:
        axes.annotate(f"{spent[-1][1]:.2f}", (at[-1], spent[-1][1]), xytext=(-6, 9), textcoords="offset points", ha="right", color=MOST)
    axes.legend(loc="lower right", frameon=False, labelcolor=INK, handlelength=1.6, borderaxespad=0.8)


def _bands(axes: Any, runs: Sequence[str], dates: Sequence[str]) -> None:
    """Every other run on a tinted ground, with its name and the day of its first charge."""
    starts = [at for at in range(len(runs)) if at == 0 or runs[at] != runs[at - 1]]
    for number, (start, end) in enumerate(pairwise([*starts, len(runs)])):
        if number % 2 == 0:
            axes.axvspan(start, end, color=BAND, lw=0, zorder=0)
        if len(starts) <= MANY or number == 0:
            name = runs[start] if len(runs[start]) <= 18 else f"{runs[start][:17]}…"
            axes.annotate(
                f"{name}\n{dates[start]}",
                (start, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, 3),
                textcoords="offset points",
                color=MUTED,
                fontsize=8.5,
                linespacing=1.3,
                va="bottom",
            )


def _quiet(axes: Any) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, pad=5, labelcolor=MUTED, labelsize=9)
    axes.grid(axis="y", color=LINE, lw=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("charges to the ledger, one after the other", color=MUTED, labelpad=8)
    axes.set_ylabel("epsilon spent by one patient", color=MUTED, labelpad=8)
