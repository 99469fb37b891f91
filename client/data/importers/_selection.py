"""Of a source's films those that were asked for, as rows of a manifest, and what was counted on the way."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from client.data.importers._films import FRONTAL, Picture, Source, Study, plain_age, plain_sex, priors
from rainhill.config import SplitConfig
from rainhill.errors import ConfigError, DataError
from rainhill.text import counted, did_you_mean, one_line, shown

COLUMNS = ("image", "patient", "split", "sex", "age", "view", "report", "indication", "prior")
SHOWN = 5
_PATH = 200


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Of all that the set has."""

    views: frozenset[str] | None = frozenset(FRONTAL)
    """None: all."""
    patients: int | None = None
    """The first so many, of those with a film of these views."""
    findings: tuple[str, ...] = ()
    """All where empty."""
    skip_missing: bool = False


@dataclass(kw_only=True)
class Tally:
    """What was found, for a person; of a report only that it is there."""

    films: int = 0
    patients: int = 0
    filled: Counter[str] = field(default_factory=Counter)
    """Column of the manifest -> rows that have something in it."""
    views: Counter[str] = field(default_factory=Counter)
    other_views: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    """Patients of each."""
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    no_part: int = 0
    impossible_ages: int = 0


def chosen_findings(source: Source, asked: Sequence[str]) -> tuple[str, ...]:
    for finding in asked:
        if finding not in source.findings:
            there = f" (there are: {', '.join(source.findings)})" if source.findings else ", it has no labels"
            raise ConfigError(
                f"--findings names {shown(finding)!r}, which the set does not have{did_you_mean(finding, source.findings)}{there}"
            )
    clash = sorted(set(source.findings) & set(COLUMNS))
    if clash:
        raise DataError(f"a label is called {clash[0]!r}, as a column of the manifest is: rename it")
    return tuple(dict.fromkeys(asked)) or source.findings


def rows_of(source: Source, findings: Sequence[str], folder: Path, choice: Choice, tally: Tally) -> Iterator[list[str]]:
    places = [source.findings.index(finding) for finding in findings]
    seen: set[str] = set()
    for studies in source.patients:
        if choice.patients is not None and tally.patients >= choice.patients:
            return
        _refuse_odd(studies)
        split = _part(studies[0], source)
        before = tally.films
        for study, prior in zip(studies, priors(studies), strict=True):
            for picture in study.pictures:
                if not _wanted(picture, source, choice, tally):
                    continue
                if source.parts and not split:
                    tally.no_part += 1
                elif image := _usable(picture.image, folder, seen, tally):
                    labels = [study.labels[place] for place in places]
                    yield _row(study, Picture(image=image, view=picture.view), split, prior, labels, findings, tally)
        if tally.films > before:
            tally.patients += 1
            tally.parts[split] += 1


def _refuse_odd(studies: Sequence[Study]) -> None:
    first = studies[0]
    image = first.pictures[0].image
    if not first.patient:
        raise DataError(f"{shown(image)!r}: has no patient, expected a number or pseudonym")
    for study in studies:
        if study.split != first.split:
            raise DataError(
                f"{shown(study.pictures[0].image)!r} is in {study.split or 'no part'}, "
                f"{shown(image)!r} of the same patient in {first.split or 'no part'}"
            )


def _wanted(picture: Picture, source: Source, choice: Choice, tally: Tally) -> bool:
    if choice.views is None or not source.tells_views or picture.view.upper() in choice.views:
        return True
    tally.other_views[picture.view.upper()] += 1
    return False


def _usable(named: str, folder: Path, seen: set[str], tally: Tally) -> str:
    """The image's path in one spelling, so that `./a.png` is `a.png`; empty where it is not to be used, which is tallied."""
    path = PurePosixPath(named)
    if ".." in path.parts or path.is_absolute():
        raise DataError(f"{shown(named)!r} leaves the folder {folder}")
    image = str(path)
    if image in seen:
        tally.twice.append(image)
        return ""
    seen.add(image)
    if not (folder / image).is_file():
        tally.missing.append(image)
        return ""
    return image


def _row(study: Study, picture: Picture, split: str, prior: str, labels: Sequence[str], findings: Sequence[str], tally: Tally) -> list[str]:
    age = plain_age(study.age)
    tally.impossible_ages += age is None
    sex, view = plain_sex(study.sex), picture.view.upper()
    cells = [picture.image, study.patient, split, sex, age or "", view, study.report, study.indication, prior]
    tally.films += 1
    tally.views[view] += 1
    tally.filled.update(column for column, cell in zip(COLUMNS, cells, strict=True) if cell)
    for finding, value in zip(findings, labels, strict=True):
        tally.labels[finding][value] += 1
    return [*cells, *labels]


def _part(study: Study, source: Source) -> str:
    """The set's own part; of its training patients some are dealt into a part that the set does not have, each by a lot of its own."""
    if study.split != "train" or not source.parts:
        return study.split
    lot = int.from_bytes(hashlib.sha256(study.patient.encode()).digest()[:8], "big") / 2**64
    shares = SplitConfig()
    for part, share in (("val", shares.val), ("test", shares.test)):
        if part not in source.parts:
            if lot < share:
                return part
            lot -= share
    return "train"


def refuse(tally: Tally, folder: Path, choice: Choice) -> None:
    for found, what in ((tally.twice, "named more than once"), (tally.missing if not choice.skip_missing else [], "not there")):
        if found:
            first = ", ".join(one_line(image, _PATH) for image in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
            hint = "; --skip-missing leaves such images out" if what == "not there" else ""
            raise DataError(
                f"{folder}: {counted(len(found), 'image')} that the tables name {'is' if len(found) == 1 else 'are'} {what}: {first}{hint}"
            )
    if not tally.films:
        other = ", ".join(f"{shown(view) or 'unknown'} {count}" for view, count in tally.other_views.most_common())
        why = [f"of the views {', '.join(sorted(choice.views or ()))} there is none, there are {other}"] if other else []
        why += [f"{counted(len(tally.missing), 'image')} not there"] if tally.missing else []
        raise DataError(f"{folder}: no film is left{': ' if why else ''}{'; '.join(why)}")
