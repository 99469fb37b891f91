"""What `rainhill reports` says on the terminal, narrow enough for 80 columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.data.labeler import Mention
from client.reporting.reading import Reading
from rainhill.text import counted, one_line

LONGEST_WORDS = 60
LONGEST_COLUMN, LONGEST_NAME = 17, 19
GROUPS = (
    ("means", "label_", "what is said"),
    ("means", "", "wrong, per report"),
    ("wording", "", "how it is worded"),
    ("external", "", "by other programs"),
)
"""Of the document, how names in it begin, heading."""


def print_reading(console: Console, mentions: Sequence[Mention], read: Reading) -> None:
    table = _table()
    for heading in ("finding", "is", "side", "severity"):
        table.add_column(heading, no_wrap=True)
    table.add_column("by the words")
    for one in mentions:
        words = _words(one.words) + (f" ({_words(one.cue)})" if one.cue else "")
        table.add_row(one.finding, one.state, one.side, one.severity, words)
    console.print(table)
    console.print(f"no finding: {read.labels['no_finding']}")
    unmentioned = [finding for finding, label in read.labels.items() if label == "unmentioned"]
    for what, names in (("says nothing of", unmentioned), ("contradicts itself on", read.contradicted)):
        if names:
            console.print(f"{what}: {', '.join(names)}")
    if read.comparisons:
        console.print(f"compares: {', '.join(_words(one) for one in read.comparisons)}")


def print_scores(console: Console, document: Mapping[str, Any]) -> None:
    percent = f"{100 * document['confidence']:g} %"
    several = document["patients"] > 1
    drawn = f"{percent} intervals over patients, {document['bootstraps']} draws" if several else "no intervals, for it is a single patient"
    console.print(f"{counted(document['reports'], 'report')} of {counted(document['patients'], 'patient')}; {drawn}")
    console.print(_measures(document))
    console.print(_errors(document))
    console.print(_findings(document))
    (first, *_) = document["drafts"].values()
    if first["left_out"]:
        console.print(f"too few with or without: {', '.join(first['left_out'])}", style="dim")
    for column, of in document["drafts"].items():
        for name, why in of["not_measured"].items():
            console.print(f"{escape(_short(column))}: {escape(name)}: not measured, {escape(why)}", highlight=False)
    if document["differences"] and several:
        console.print(f"* the {percent} interval of the difference excludes 0", style="dim")


def _measures(document: Mapping[str, Any]) -> Table:
    table = _of_columns(document, "")
    columns = document["drafts"].values()
    told: set[str] = set()
    for group, begin, heading in GROUPS:
        names = dict.fromkeys(name for of in columns for name in of[group] if name.startswith(begin) and name not in told)
        told |= names.keys()
        if names:
            table.add_section()
            table.add_row(heading, style="dim")
        for name in names:
            _add(table, name, [of[group].get(name) for of in columns], document["differences"], name)
    return table


def _errors(document: Mapping[str, Any]) -> Table:
    table = _table()
    table.add_column("errors, all reports", no_wrap=True, min_width=len("hallucinated_comparison"))
    for column in document["drafts"]:
        table.add_column(escape(_short(column)), justify="right", no_wrap=True)
    columns = [of["errors"] for of in document["drafts"].values()]
    for name in columns[0]:
        table.add_row(name, *(str(of[name]) for of in columns))
    return table


def _findings(document: Mapping[str, Any]) -> Table:
    table = _of_columns(document, "F1")
    columns = document["drafts"].values()
    for finding in dict.fromkeys(finding for of in columns for finding in of["findings"]):
        of_each = [of["findings"].get(finding, {}).get("f1") for of in columns]
        _add(table, finding, of_each, document["differences"], f"{finding}.f1")
    return table


def _of_columns(document: Mapping[str, Any], heading: str) -> Table:
    table = _table()
    table.add_column(heading, overflow="fold", max_width=LONGEST_NAME)
    for column in document["drafts"]:
        table.add_column(escape(_short(column)), justify="right", no_wrap=True)
    if document["differences"]:
        table.add_column("difference", justify="right", no_wrap=True)
    return table


def _add(table: Table, name: str, of_each: Iterable[Any], differences: Mapping[str, Any], key: str) -> None:
    cells = [_cell(of, "") for of in of_each]
    if key in differences:
        of = differences[key]
        apart = of["low"] is not None and (of["low"] > 0 or of["high"] < 0)
        cells.append(_cell(of, "+") + ("*" if apart else " "))
    table.add_row(escape(name), *cells)


def _cell(of: Mapping[str, float | None] | None, sign: str) -> str:
    if of is None or of["value"] is None:
        return "-"
    value = _number(of["value"], sign)
    return value if of["low"] is None or of["high"] is None else escape(f"{value} [{_number(of['low'], '')}, {_number(of['high'], '')}]")


def _number(value: float, sign: str) -> str:
    """Three digits where there are so many."""
    return f"{value:{sign}.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def _words(text: str) -> str:
    return escape(one_line(" ".join(text.split()), LONGEST_WORDS))


def _short(column: str) -> str:
    return one_line(column, LONGEST_COLUMN)
