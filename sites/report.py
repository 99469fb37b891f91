"""The page a run leaves behind: one self-contained HTML file, no script, nothing fetched."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from rainhill.files import write_whole
from sites.plots import ARM_TITLES, ARMS, DARK, MANY, SIGNS, Film, Results, draw_cross_site, draw_curves, draw_films, draw_recovery
from sites.side_by_side import beside
from sites.verdict import (
    Interval,
    Verdict,
    arm,
    consortium_text,
    difference,
    interval,
    measure,
    measure_title,
    over_findings,
    site_verdict,
    verdict_text,
)

__all__ = ["Film", "write_report"]

_OTHERS: Mapping[str, Mapping[str, str]] = {
    "auroc": {"auprc": "AUPRC, higher is better", "brier": "Brier score, lower is better", "ece": "calibration error, lower is better"},
    "label_f1": {
        "label_precision": "precision of labels",
        "label_recall": "recall of labels",
        "label_macro_f1": "macro F1, over the findings that count",
        "wrong_sides": "wrong sides, of a report",
        "contradictions": "contradictions, of a draft",
        "comparisons": "compares where the report does not",
        "silent": "says nothing of any finding",
        "errors": "errors (ReXVal's six), of a draft",
        "rouge_l": "ROUGE-L",
        "cider_d": "CIDEr-D, 0 to 10",
        "changed_words": "words to change",
    },
}
"""Metrics beside the measure, and what they are called on the page."""

_POSSIBLE = ("base", "local", "shared", "private")  # pooled is the bound that real hospitals cannot reach


def write_report(results: Results, films: Mapping[str, Sequence[Film]], folder: Path) -> Path:
    """Writes report.html and its figures as PNGs into `folder`; `results` is as docs/results.md has it, `films` is by site."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = _figures(results, films)
    for figure in figures.values():
        write_whole(folder / f"{figure.name}.png", figure.light)
    page = _environment().get_template("report.html.j2").render(_view(results), run=results, figures=figures)
    path = folder / "report.html"
    write_whole(path, page.encode())
    return path


@dataclass(frozen=True, kw_only=True)
class Figure:
    name: str
    alt: str
    light: bytes
    dark: bytes

    @property
    def width_px(self) -> int:
        return int.from_bytes(self.light[16:20], "big")  # IHDR: PNG 11.2.1

    @property
    def height_px(self) -> int:
        return int.from_bytes(self.light[20:24], "big")


@dataclass(frozen=True, kw_only=True)
class Cell:
    arm: str
    of: Interval
    best: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One site, as the page tells it."""

    name: str
    title: str
    site: Mapping[str, Any]
    cells: Sequence[Cell]
    change: Interval
    verdict: Verdict | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Round:
    """Honest k of n: everyone asked has answered, was refused with a reason, or was silent."""

    number: int
    asked: Sequence[str]
    answered: Sequence[str]
    refused: Mapping[str, str]
    silent: Sequence[str]
    down_bytes: float
    up_bytes: float
    seconds: float | None
    log: Mapping[str, Any]


def _view(results: Results) -> dict[str, Any]:
    sites, rounds = results["sites"], [_round(each) for each in results.get("rounds") or []]
    arms = [name for name in ARMS if any(name in site for site in sites.values())]
    return {
        "arms": arms,
        "arm_titles": ARM_TITLES,
        "rows": [_row(name, site, arms) for name, site in sites.items()],
        "titles": {name: site["title"] for name, site in sites.items()}
        | {"base": "as it arrived", "shared": "all, federated", "pooled": "all, pooled"},
        "source": results.get("source"),
        "means": results.get("consortium") or {},
        "worth": consortium_text(results),
        "findings": list(results.get("outputs") or []),
        "rounds": rounds,
        "asked": sum(len(each.asked) for each in rounds),
        "answered": sum(len(each.answered) for each in rounds),
        "many": MANY,
        "signs": SIGNS,
        "drafts": {name: [beside(case) for case in site.get("drafts") or []] for name, site in sites.items()},
        "others": _OTHERS[measure(results)],
        "measure_name": measure(results),
        "measure_title": measure_title(results),
        "over_findings": over_findings(results),
    }


def _row(name: str, site: Mapping[str, Any], arms: Sequence[str]) -> Row:
    values = {each: arm(site, each) for each in arms}
    top = max((round(values[each].value, 3) for each in arms if each in _POSSIBLE and values[each].measured), default=math.nan)
    found, text = site_verdict(site), site.get("verdict_text") or verdict_text(site["title"], site)
    return Row(
        name=name,
        title=site["title"],
        site=site,
        cells=[Cell(arm=each, of=of, best=each in _POSSIBLE and of.measured and round(of.value, 3) == top) for each, of in values.items()],
        change=difference(site, "private_minus_base"),
        verdict=found,
        text=_whole_intervals(text.removeprefix(f"{site['title']}: ").removeprefix(f"{found or 'no verdict'}. ")),
    )


def _round(of: Mapping[str, Any]) -> Round:
    asked, answered, refused = of.get("asked") or [], of.get("answered") or [], of.get("refused") or {}
    return Round(
        number=of["round"],
        asked=asked,
        answered=answered,
        refused=refused,
        silent=[name for name in asked if name not in answered and name not in refused],
        down_bytes=sum((of.get("down_bytes") or {}).values()),
        up_bytes=sum((of.get("up_bytes") or {}).values()),
        seconds=of.get("seconds"),
        log=of.get("log") or {},
    )


def _figures(results: Results, films: Mapping[str, Sequence[Film]]) -> dict[str, Figure]:
    sites, source = results["sites"], results.get("source")
    title = measure_title(results)
    gains = "; ".join(
        f"{site['title']} {level(arm(site, 'base').value, 2)} to {level(arm(site, 'private').value, 2)}" for site in sites.values()
    )
    figures = [_figure("recovery", draw_recovery, results, f"{title} per site, from the model as it arrived to the adapted one: {gains}.")]
    if any(site.get("curve") for site in sites.values()):
        figures.append(
            _figure("curves", draw_curves, results, f"{title} on validation patients by round, for each site: trained alone and federated.")
        )
    if (results.get("cross_site") or {}).get("rows"):
        figures.append(
            _figure(
                "cross_site",
                draw_cross_site,
                results,
                f"Heat map of {title}, trained at row and tested at column; the numbers are in the table below.",
            )
        )
    if any(len(sheet) for sheet in films.values()):
        titles = {name: site["title"] for name, site in sites.items()} | ({source["site"]: source["title"]} if source else {})
        shown = ", ".join(titles.get(name, name) for name, sheet in films.items() if len(sheet))
        sheet = draw_films(films, titles)
        figures.append(Figure(name="films", alt=f"Sample chest films of {shown}.", light=sheet, dark=sheet))
    return {figure.name: figure for figure in figures}


def _figure(name: str, draw: Any, results: Results, alt: str) -> Figure:
    return Figure(name=name, alt=alt, light=draw(results), dark=draw(results, DARK))


# ---- how numbers are written


def level(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}".replace("-", "−")


def span(of: Interval) -> str:
    return f"{level(of.low)}{' to ' if of.low < 0 else '–'}{level(of.high)}" if of.bounded else ""


def signed(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:+.{decimals}f}".replace("-", "−")


def percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.0f}\u00a0%".replace("-", "−")


def megabytes(value: float | None) -> str:
    """Bytes as decimal megabytes, or kilobytes below a tenth of one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value / 1e6:,.2f}\u00a0MB" if value >= 1e5 else f"{value / 1e3:,.1f}\u00a0kB"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _whole_intervals(text: str) -> str:
    """No line breaks inside `0.86 [0.83, 0.89]`."""
    return re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\u00a0"), text)


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sites"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {each.__name__: each for each in (level, span, signed, percent, megabytes, count, data_uri, interval)}
    return environment
