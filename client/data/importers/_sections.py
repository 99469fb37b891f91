"""A report taken apart at its headings, as MIMIC-CXR's are written (Johnson et al. 2019, Scientific Data 6:317), and as German ones are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

from client.data.sentences import Lines
from client.data.vocabulary import cuts_of

Section = Literal["indication", "comparison", "technique", "findings", "impression", "wet_read", "addendum", "other", "body"]
_HEADINGS: dict[Section, tuple[str, ...]] = {
    "indication": (
        "indication", "indications", "clinical indication", "clinical information", "clinical history", "clinical data", "history",
        "patient history", "reason for exam", "reason for examination", "reason for study", "reason for the exam",
        "reason for this examination", "klinische angaben", "klinische angabe", "klinische angaben und fragestellung",
        "klinische angaben/fragestellung", "klinische angaben / fragestellung", "klinische information", "klinische informationen",
        "klinische fragestellung", "klinik", "klinik und fragestellung", "klinik/fragestellung", "klinik / fragestellung", "anamnese",
        "indikation", "indikationen", "rechtfertigende indikation", "fragestellung", "fragestellungen", "anforderung",
    ),
    "comparison": (
        "comparison", "comparisons", "comparison study", "comparison studies", "comparison exam", "comparison film",
        "vergleich", "vergleichsaufnahme", "vergleichsaufnahmen", "voraufnahme", "voraufnahmen", "voruntersuchung", "voruntersuchungen",
        "vorbefund", "vorbefunde",
    ),
    "technique": (
        "technique", "examination", "exam", "procedure", "type of examination", "type of exam", "study",
        "technik", "aufnahmetechnik", "untersuchungstechnik", "methode", "methodik", "untersuchung", "untersuchungsart",
    ),
    "findings": (
        "findings", "finding", "findings and impression", "findings/impression", "findings / impression", "impression and findings",
        "befund", "befunde", "radiologischer befund", "röntgenbefund", "befundbeschreibung", "befund und beurteilung", "befund/beurteilung",
        "befund / beurteilung",
    ),
    "impression": (
        "impression", "impressions", "conclusion", "conclusions", "opinion",
        "beurteilung", "zusammenfassung", "zusammenfassende beurteilung", "zusammenfassung und beurteilung", "abschließende beurteilung",
        "radiologische beurteilung", "fazit",
    ),
    "wet_read": ("wet read", "preliminary report", "vorläufiger befund", "vorabbefund"),
    "addendum": ("addendum", "addenda", "final addendum", "nachtrag", "ergänzung", "zusatzbefund"),
    "other": (
        "notification", "notifications", "recommendation", "recommendations", "recommendation(s)", "recommendations(s)", "dictated by",
        "signed by", "electronically signed by",
        "empfehlung", "empfehlungen", "procedere",
    ),
}  # fmt: skip
_SECTION: dict[str, Section] = {name: section for section, names in _HEADINGS.items() for name in names}
_BLANK = r"[ \t]+"
_KNOWN = "|".join(re.escape(name).replace(r"\ ", _BLANK) for name in sorted(_SECTION, key=len, reverse=True))
_UPPER = _KNOWN.upper().replace(_BLANK.upper(), _BLANK)
_HEADING = re.compile(
    rf"""
    ^[ \t]*(?P<final>FINAL[ \t]+REPORT|_{{10,}})[ \t]*:?[ \t]*$
    | ^[ \t]*(?P<wet>WET[ \t]READ\b[^\n]*)$
    | (?:^|(?<=[.!?])(?=[ \t]))[ \t]*(?P<named>(?i:{_KNOWN}))[ \t]*:
    | ^[ \t]*(?P<alone>{_UPPER})[ \t]*$
    | ^[ \t]*(?P<film>(?:R(?:ö|oe)ntgen|Rö)\b(?=[^:\n]*Thorax)[^:\n]{{1,80}}
        |(?=[^:\n]*(?:CHEST|VIEW|RADIOGRAPH))(?:[A-Z0-9 ()/\#,.&'_-]|(?<=\d):(?=\d))+):
    """,
    re.MULTILINE | re.VERBOSE,
)
_OPENS = ("indication", "comparison", "technique")
_STOPS = (".", "!", "?", ";")
_ITEM = re.compile(r"[ \t]*(?:[-*•]|\d+[.)])[ \t]")


@dataclass(frozen=True, kw_only=True)
class Sections:
    """Empty where a report has none. What is in `addendum` and `wet_read` is in no other."""

    indication: str = field(default="", repr=False)
    comparison: str = field(default="", repr=False)
    technique: str = field(default="", repr=False)
    findings: str = field(default="", repr=False)
    impression: str = field(default="", repr=False)
    wet_read: str = field(default="", repr=False)
    addendum: str = field(default="", repr=False)
    other: str = field(default="", repr=False)
    body: str = field(default="", repr=False)
    """What is under no heading."""

    @property
    def report(self) -> str:
        """Findings and impression under their headings; the body of a report that has neither."""
        return joined(self.findings, self.impression) or self.body


def joined(findings: str, impression: str) -> str:
    parts = (("FINDINGS", findings), ("IMPRESSION", impression))
    return "\n".join(f"{heading}: {text}" for heading, text in parts if text)


def sections(text: str) -> Sections:
    """The last of several reports in a text, such as of one with a preliminary reading before it, is the one that counts."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, list[str]] = {one.name: [] for one in fields(Sections)}
    for section, piece in _pieces(text):
        if piece := unwrapped(piece):
            found[section].append(piece)
    return Sections(**{name: "\n".join(pieces) for name, pieces in found.items()})


def _pieces(text: str) -> Iterator[tuple[Section, str]]:
    current: Section = "body"
    start = 0
    for heading in _HEADING.finditer(text):
        section = _section_of(heading, current)
        if section is None:
            continue
        yield current, text[start : heading.start()]
        current, start = section, heading.end()
    yield current, text[start:]


def _section_of(heading: re.Match[str], current: Section) -> Section | None:
    """What the heading opens; None where it is part of the section that it stands in."""
    if heading["final"]:
        return "body"
    if heading["wet"]:
        return "wet_read"
    aside = current in {"wet_read", "addendum"}
    if heading["film"]:
        # "PA AND LATERAL VIEWS OF THE CHEST:" stands where others have "FINDINGS:".
        return None if aside or current in {"findings", "impression"} else "findings"
    section = _SECTION[" ".join((heading["named"] or heading["alone"]).lower().split())]
    # An addendum may have an impression of its own, which is not the report's; a report begins with what was asked.
    return section if not aside or section in (*_OPENS, "addendum", "wet_read") else None


def unwrapped(text: str) -> str:
    """Lines that were only full are joined; paragraphs, the items of a list and lines that begin a statement stay apart."""
    text = "\n".join(text.splitlines())
    lines = Lines(text, cuts_of())
    written: list[str] = []
    end, blank = 0, False
    for line in text.split("\n"):
        begins, end = lines.begins(end), end + len(line) + 1
        said = " ".join(line.split())
        if not said:
            blank = True
        elif not written or blank or _ITEM.match(line) or (begins and not written[-1].endswith(_STOPS)):
            written.append(f"\n{said}" if blank and written else said)
            blank = False
        else:
            written[-1] += f" {said}"
    return "\n".join(written)
