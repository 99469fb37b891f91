"""A report taken apart at its headings, as MIMIC-CXR's are written. Johnson et al. 2019, Scientific Data 6:317."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

Section = Literal["indication", "comparison", "technique", "findings", "impression", "wet_read", "addendum", "other", "body"]
_HEADINGS: dict[Section, tuple[str, ...]] = {
    "indication": (
        "indication", "indications", "clinical indication", "clinical information", "clinical history", "clinical data", "history",
        "patient history", "reason for exam", "reason for examination", "reason for study", "reason for the exam",
        "reason for this examination",
    ),
    "comparison": ("comparison", "comparisons", "comparison study", "comparison studies", "comparison exam", "comparison film"),
    "technique": ("technique", "examination", "exam", "procedure", "type of examination", "type of exam", "study"),
    "findings": (
        "findings", "finding", "findings and impression", "findings/impression", "findings / impression", "impression and findings",
    ),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "opinion"),
    "wet_read": ("wet read", "preliminary report"),
    "addendum": ("addendum", "addenda", "final addendum"),
    "other": (
        "notification", "notifications", "recommendation", "recommendations", "recommendation(s)", "recommendations(s)", "dictated by",
        "signed by", "electronically signed by",
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
    | ^[ \t]*(?P<film>(?=[^:\n]*(?:CHEST|VIEW|RADIOGRAPH))(?:[A-Z0-9 ()/\#,.&'_-]|(?<=\d):(?=\d))+):
    """,
    re.MULTILINE | re.VERBOSE,
)
_OPENS = ("indication", "comparison", "technique")
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
    """Lines that were only full are joined; paragraphs and the items of a list stay apart."""
    paragraphs: list[str] = []
    for paragraph in re.split(r"\n[^\S\n]*\n", text):
        lines: list[str] = []
        for line in paragraph.splitlines():
            if not line.strip():
                continue
            if lines and not _ITEM.match(line):
                lines[-1] = f"{lines[-1]} {' '.join(line.split())}"
            else:
                lines.append(" ".join(line.split()))
        if lines:
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)
