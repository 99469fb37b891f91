"""An imported data set as a site: its manifest, and the site's file that names the columns."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from client.data.importers._films import Source
from client.data.importers._selection import COLUMNS, Choice, Tally, chosen_findings, refuse, rows_of
from client.data.splits import PARTS
from rainhill import toml
from rainhill.config import SiteConfig
from rainhill.errors import ConfigError
from rainhill.files import written_whole
from rainhill.text import counted


@dataclass(frozen=True, kw_only=True)
class Imported:
    manifest: Path
    site_file: Path
    tally: Tally
    notes: tuple[str, ...]


def refuse_target(out: Path, name: str, *, replace: bool) -> None:
    """Raises ConfigError for a name that is none, and for one that is taken: before minutes of reading."""
    toml.parse({"name": name}, SiteConfig, origin="--name")
    for path in _targets(out, name):
        if path.exists() and not replace:
            raise ConfigError(f"{path}: is there already; --replace writes it anew, what was changed in it by hand is lost then")


def import_site(source: Source, *, folder: Path, out: Path, name: str, title: str, choice: Choice) -> Imported:
    """Writes `NAME.csv` and `NAME.toml` into `out`. For images that are not there, or twice, or for none: DataError, and neither."""
    manifest, site_file = _targets(out, name)
    findings = chosen_findings(source, choice.findings)
    tally = Tally(labels={finding: Counter() for finding in findings})
    # Both are whole before the first takes its name. The manifest may hold reports, which few should read.
    with _gone_if_new(out), written_whole(site_file) as site, written_whole(manifest, private=True) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow([*COLUMNS, *findings])
        lines.writerows(rows_of(source, findings, folder, choice, tally))
        text.detach()
        refuse(tally, folder, choice)
        config = _site(source, tally, name=name, folder=folder, findings=findings)
        toml.parse(config, SiteConfig, origin=str(site_file))
        heading = f"# {title}, as `rainhill import` found it in the folder that `images` names.\n\n"
        site.write((heading + tomli_w.dumps(config)).encode())
        site.flush()
        os.fsync(site.fileno())
    return Imported(manifest=manifest, site_file=site_file, tally=tally, notes=_notes(source, tally, config))


@contextmanager
def _gone_if_new(folder: Path) -> Iterator[None]:
    """Folders that were not there before the block, and are empty, go where it raises."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:
        for place in new:
            with suppress(OSError):
                place.rmdir()
        raise


def _targets(out: Path, name: str) -> tuple[Path, Path]:
    return out / f"{name}.csv", out / f"{name}.toml"


def _site(source: Source, tally: Tally, *, name: str, folder: Path, findings: Sequence[str]) -> dict[str, object]:
    columns = {column: column for column in COLUMNS if tally.filled[column]}
    if not (source.parts and all(tally.parts[part] for part in PARTS)):
        # A part without a patient would leave nothing to test on: all are dealt anew.
        columns.pop("split", None)
    data = {
        "manifest": f"{name}.csv",
        "images": str(folder.absolute()),
        "columns": columns,
        "labels": {finding: finding for finding in findings},
    }
    return {"name": name, "data": data}


def _notes(source: Source, tally: Tally, config: dict[str, object]) -> tuple[str, ...]:
    notes = list(source.notes)
    data = config["data"]
    assert isinstance(data, dict)
    dealt = [part for part in PARTS if part not in source.parts]
    if source.parts and "split" not in data["columns"]:
        empty = ", ".join(part for part in PARTS if not tally.parts[part])
        notes.append(f"nobody is in {empty} here, so the set's own parts are not used: rainhill deals its patients itself")
    elif source.parts and dealt:
        notes.append(f"the set has no {' and no '.join(dealt)}: some of its training patients are dealt there, each by a lot of its own")
    if tally.missing:
        notes.append(f"{counted(len(tally.missing), 'image')} not there, left out")
    if tally.no_part:
        notes.append(f"{counted(tally.no_part, 'film')} in no part of the set, left out")
    if tally.impossible_ages:
        notes.append(f"{counted(tally.impossible_ages, 'age')} that no person has, left empty")
    if not source.tells_views:
        notes.append("the set does not say which view a film is: all are taken, lateral ones too if there are any")
    return tuple(notes)
