"""`rainhill reports`: what a radiology report says, and how drafts compare with the reports that were signed."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.errors import DataError
from rainhill.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.data.labeler import Labeler

File = click.Path(path_type=Path, dir_okay=False)
Language = click.option("--language", default="en", show_default=True, metavar="en|de", help="Of the reports.")
Phrases = click.option(
    "--phrases", multiple=True, type=File, metavar="FILE.toml", help="The site's own words, besides those of the language."
)
AsJson = click.option("--json", "as_json", is_flag=True, help="For a script: one object.")


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    # No range leaves out what is no number.
    if not isfinite(value):
        raise click.BadParameter(f"{value}: expected a number of seconds")
    return value


@click.group()
def reports() -> None:
    """Read radiology reports, and hold drafts against those that were signed. Nothing is downloaded."""


@reports.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@Language
@Phrases
@AsJson
def label(file: Path, language: str, phrases: tuple[Path, ...], as_json: bool) -> None:
    """Tell what a report says, finding by finding, with the words that each rests on; `-` reads standard input."""
    with stops_at_once():
        from dataclasses import asdict

        from rich.console import Console

        from client.data.clauses import OTHER
        from client.reporting._tables import print_reading
        from client.reporting.reading import reading

    labeler, text = _labeler(language, phrases), _text(file)
    _warn_of_another_language({str(file): [text]}, language, labeler)
    read, mentions = reading(labeler, text), [one for one in labeler.mentions(text) if one.finding != OTHER]
    if as_json:
        told = {"labels": read.labels, "contradicted": read.contradicted, "comparisons": read.comparisons}
        _echo_json(told | {"mentions": [asdict(one) for one in mentions]})
    else:
        print_reading(Console(), mentions, read)


@reports.command()
@click.argument("table", metavar="TABLE.csv", type=File)
@click.option("--draft", default="draft", show_default=True, metavar="COLUMN")
@click.option("--reference", default="reference", show_default=True, metavar="COLUMN", help="What a radiologist signed.")
@click.option("--patient", default="patient", show_default=True, metavar="COLUMN", help="Intervals are over patients.")
@click.option("--against", metavar="COLUMN", help="Drafts of another model, to be compared in pairs.")
@click.option("--external", multiple=True, metavar="'COMMAND ...'", help="A program with metrics of its own: docs/report-metrics.md.")
@click.option(
    "--external-timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    callback=_finite,
)
@click.option("--bootstraps", type=click.IntRange(100, 100_000), default=500, show_default=True)
@click.option(
    "--min-positives", type=click.IntRange(min=1), default=5, show_default=True, help="A finding counts that so many have, and lack."
)
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True)
@Language
@Phrases
@AsJson
def score(
    table: Path,
    draft: str,
    reference: str,
    patient: str,
    against: str | None,
    external: tuple[str, ...],
    timeout_s: float,
    bootstraps: int,
    min_positives: int,
    seed: int,
    language: str,
    phrases: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Hold a column of drafts against a column of references: what they say first, then how they are worded."""
    commands = [_command(text) for text in external]
    columns = [draft, *([against] if against is not None else [])]
    if len({*columns, reference, patient}) != len(columns) + 2:
        raise click.UsageError("--draft, --reference, --patient and --against are different columns")
    with stops_at_once():
        from rich.console import Console

        from client.reporting._tables import print_scores
        from client.reporting.scorecard import answers_of, document, read_pairs, scorecard
        from rainhill.recipe import EvaluationSection

    labeler = _labeler(language, phrases)
    pairs = read_pairs(table, drafts=columns, reference=reference, patient=patient)
    read = {reference: pairs.references, **pairs.drafts}
    _warn_of_another_language({f"column {shown(column)}": reports for column, reports in read.items()}, language, labeler)
    section = EvaluationSection(bootstraps=bootstraps, min_positives=min_positives)
    # Programs first: one that answers nonsense is told before minutes are spent.
    answers = {column: answers_of(commands, pairs, column, timeout_s=timeout_s) for column in columns}
    cards = {column: scorecard(labeler, pairs, column, answers[column], section=section, seed=seed) for column in columns}
    found = document(cards, pairs, section=section, seed=seed)
    if as_json:
        _echo_json(found)
    else:
        print_scores(Console(), found)


def _command(text: str) -> list[str]:
    import shlex

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise click.UsageError(f"--external: {error}") from error
    if not words:
        raise click.UsageError("--external: names no program")
    return words


def _labeler(language: str, phrases: tuple[Path, ...]) -> Labeler:
    from client.data.labeler import Labeler

    return Labeler(language=language, own=phrases)


def _warn_of_another_language(texts: Mapping[str, Sequence[str]], language: str, labeler: Labeler) -> None:
    """`texts` by where they stand."""
    from client.data.languages import heard, labelers_of

    labelers = labelers_of(language, labeler)
    for where, reports in texts.items():
        read = heard(reports, language, labelers)
        if read.elsewhere:
            said = "reads" if read.reports == 1 else f"{read.elsewhere} of {read.reports} reports read"
            rather = f"rather as language {read.other!r} than as {language!r} (--language {read.other})"
            click.echo(f"{where}: {said} {rather}: negations may go unseen", err=True)


def _text(file: Path) -> str:
    written = click.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
    try:
        text = written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text (byte {error.start + 1})") from None
    if not text.strip():
        raise DataError(f"{file}: is empty, expected a report")
    return text


def _echo_json(document: object) -> None:
    import json

    click.echo(json.dumps(document, indent=1))
