"""What a run says on the terminal: one table, narrow enough for 80 columns, and two lines of explanation."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sites import verdict


def print_run(console: Console, document: dict[str, Any]) -> None:
    """The measure of every hospital and arm, narrow enough for 80 columns."""
    arms, measure, title = ("base", "local", "shared", "private", "pooled"), verdict.measure(document), verdict.measure_title(document)
    table = _table(document)
    table.add_column(f"mean {title}" if title == "AUROC" else title, overflow="ellipsis", no_wrap=True, max_width=20)
    for heading in (*arms, "gap"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    table.add_column("verdict", no_wrap=True, min_width=len("no different"))
    source = document["source"]
    if source and measure in source:
        table.add_row(escape(source["title"]), _value(source, measure), *[""] * len(arms), "source", style="dim")
    colours = {"better": "green", "worse": "red"}
    for site in document["sites"].values():
        found = site["verdict"] or "not measured"
        table.add_row(
            escape(site["title"]),
            *(_value(site[arm], measure) for arm in arms),
            _percent(site["recovered"]),
            f"[{colours.get(found, 'default')}]{found}[/]",
        )
    means = document["consortium"]
    table.add_section()
    cells = (f"{means[arm]:.3f}" if means[arm] is not None else "-" for arm in arms)
    table.add_row("mean over hospitals", *cells, _percent(means["recovered"]), "", style="bold")
    console.print(table)
    console.print(
        "base: as it arrived. local: each alone. shared: federated. private: federated, then its own part. "
        "pooled: all films in one place, which the real world forbids. gap: share of base to pooled that private closed.",
        style="dim",
    )
    if source:
        told = "as before" if source["unchanged"] else "NOT AS BEFORE"
        console.print(f"With every adapter off, the base at {escape(source['title'])} is {told} the run.", style="dim")
    kib, ratio = document["bytes_per_site_round"] / 1024, document["bytes_ratio"]
    console.print(
        f"{kib:.0f} KiB crossed per site and round, {ratio:.1f} times less than the whole model would take; "
        f"{document['seconds']:.0f} s, {document['peak_rss_mb'] / 1000:.1f} GB; {_privacy(document['privacy'])}"
    )


def _privacy(promised: dict[str, Any] | None) -> str:
    if promised is None:
        return "no differential privacy in this run"
    return (
        f"epsilon {promised['epsilon']:g} at delta {promised['delta']:g} for each patient ({promised['neighbours']}) in shared, "
        "with simulated noise; local and pooled are without"
    )


def print_comparison(console: Console, document: dict[str, Any]) -> None:
    """A row per strategy, narrow enough for 80 columns: the mean over hospitals, differences, and how many hospitals moved."""
    mean, sites = document["mean"], document["sites"].values()
    table = _table(document)
    table.add_column("strategy", overflow="ellipsis", no_wrap=True, max_width=26)
    for heading in ("private", "- alone", "- first", "better", "worse", "KiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, about in document["strategies"].items():
        entry = mean["strategies"][name]
        alone = [site["strategies"][name]["private_minus_local"] for site in sites]
        table.add_row(
            escape(name),
            _number(entry["private"]["value"]),
            _number(entry["private_minus_local"]["value"], "+.3f"),
            _number(entry["private_minus_first"]["value"], "+.3f"),
            str(sum(one["low"] is not None and one["low"] > 0 for one in alone)),
            str(sum(one["high"] is not None and one["high"] < 0 for one in alone)),
            f"{about['bytes_per_site_round'] / 1024:.0f}",
        )
    console.print(table)
    console.print(
        f"mean {verdict.measure_title(document)} over {len(sites)} hospitals and {len(document['seeds'])} seeds; "
        f"as it arrived {_number(mean['base']['value'])}, alone {_number(mean['local']['value'])}, "
        f"pooled {_number(mean['pooled']['value'])}. better, worse: hospitals whose 95 % interval against training alone excludes 0. "
        "KiB: of a site and round, both ways.",
        style="dim",
    )


def _table(document: dict[str, Any]) -> Table:
    title = escape(document["title"] or document["name"])
    return Table(title=title, title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def _value(arm: dict[str, Any], measure: str) -> str:
    return _number(arm[measure]["value"]) if measure in arm else "-"


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else f"{value:{form}}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
