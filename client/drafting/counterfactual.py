"""Training examples in which something is new that was there before: the earlier report without it, and the later one that calls it new.

Where patients' findings mostly stay, a model learns to write "unchanged" of all of them and stops reading the earlier report. Both reports
of an example are the same patient's, and nothing of another's goes into them. Counterfactually augmented data: Kaushik, Hovy, Lipton 2020,
arXiv:1909.12434.
"""

import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from client.data.labeler import Labeler
from client.drafting._language import language_of
from client.drafting._rewriting import capital
from client.drafting._sentences import CONCLUDES, sentences_of
from client.reporting.changes import Spoken, changes, spoken
from client.reporting.reading import CLASSES, findings_there, reading
from rainhill.errors import ConfigError

NEW: Mapping[str, tuple[tuple[str, str], ...]] = {
    "en": ((r"unchanged|stable|persistent|persisting", "new"), (r"(?<=\w )persists", "is new"), (r"persists", "new"),
           (r"again", "newly")),
    "de": ((r"(?:unverändert|stabil|persistierend|bekannt)(e[mnrs]?)?", r"neu\1"), (r"weiterhin", "neu")),
}  # fmt: skip
"""Words of what stays -> words of what is new."""
_PARTS = re.compile(r"([,;.](?:\s+|$))")


@dataclass(frozen=True, kw_only=True, repr=False)
class Pair:
    prior: str
    report: str


def counterfactual(pair: Pair, labeler: Labeler, *, share: float, language: str = "en") -> Pair:
    """Of the findings that the report calls unchanged and the prior has, such a share is taken out of the prior and called new.

    Both are read again afterwards, and all else that they say is what they said; a finding whose sentences cannot be parted from others'
    stays as it is. The same pair is always rewritten in the same way. ConfigError for a language that there are no words of.
    """
    if language not in NEW:
        raise ConfigError(f"there are no words for what is new in language {language!r}; there are those of {', '.join(NEW)}")
    if not pair.prior:
        return pair
    rng = np.random.default_rng(zlib.crc32(f"{pair.prior}\0{pair.report}".encode()))
    for group in _unchanged(labeler, pair.report, language):
        if rng.random() < share:
            pair = _renewed(pair, frozenset(group), labeler, language) or pair
    return pair


def _unchanged(labeler: Labeler, report: str, language: str) -> list[tuple[str, ...]]:
    """Findings that are called so together."""
    found = (one.findings for one in spoken(labeler, report, language=language) if "unchanged" in one.changes and one.findings)
    return list(dict.fromkeys(found))


def _renewed(pair: Pair, group: frozenset[str], labeler: Labeler, language: str) -> Pair | None:
    """None where it cannot be said without saying something else too."""
    if not group & _there(labeler, pair.prior):
        return None
    report = "".join(_called_new(one, group, language) for one in spoken(labeler, pair.report, language=language))
    wanted = {**changes(labeler, pair.report, language=language), **dict.fromkeys(group, "new")}
    if changes(labeler, report, language=language) != wanted or _said(labeler, report) != _said(labeler, pair.report):
        return None
    prior = _without(pair.prior, group, labeler, language_of(language).plain.normal)
    # Without any prior nothing could be new.
    if not prior or group & _there(labeler, prior) or _said(labeler, prior, group) != _said(labeler, pair.prior, group):
        return None
    return Pair(prior=prior, report=report)


def _called_new(sentence: Spoken, group: frozenset[str], language: str) -> str:
    if not group & set(sentence.findings) or "unchanged" not in sentence.changes:
        return sentence.text
    text = sentence.text
    for pattern, with_ in NEW[language]:
        text = re.sub(rf"\b(?:{pattern})\b", partial(_in_its_place, with_), text, flags=re.IGNORECASE)
    return text


def _in_its_place(with_: str, found: re.Match[str]) -> str:
    return capital(found.expand(with_), like=found[0])


def _without(prior: str, group: frozenset[str], labeler: Labeler, normal: str) -> str:
    """Without the sentences that have something of the group, and those that say no more than how it went on."""
    concluding = next(
        (one.start() for one in CONCLUDES.finditer(prior) if not prior[: one.start()].rpartition("\n")[2].strip()), len(prior)
    )
    kept, gone = "", False
    for one in sentences_of(prior[:concluding]):
        mentions = labeler.mentions(one.text)
        follows = gone and not mentions and bool(labeler.comparisons(one.text))
        gone = follows or not group.isdisjoint(findings_there(mentions))
        if not gone:
            kept += one.before + one.text + one.end
    return f"{kept.strip()}\n{_concluded(prior[concluding:], group, labeler, normal)}".strip()


def _concluded(text: str, group: frozenset[str], labeler: Labeler, normal: str) -> str:
    """An impression lists findings, between which commas stand; `normal` where none is left."""
    heading = CONCLUDES.match(text)
    if heading is None or not group & _there(labeler, text):
        return text
    pieces = _PARTS.split(text[heading.end() :])
    parts = [(part, mark) for part, mark in zip(pieces[::2], [*pieces[1::2], ""], strict=True) if part.strip()]
    left = [(part, mark) for part, mark in parts if not group & _there(labeler, part)]
    if not left:
        return f"{heading[0]} {normal}"
    # What stood at the end of the list stands there again.
    return heading[0] + " " + "".join(part + mark for part, mark in left[:-1]).lstrip() + left[-1][0].strip() + parts[-1][1].strip()


def _there(labeler: Labeler, text: str) -> frozenset[str]:
    return frozenset(findings_there(labeler.mentions(text)))


def _said(labeler: Labeler, text: str, but: Collection[str] = ()) -> dict[str, tuple[object, ...]]:
    """Of each other finding."""
    read = reading(labeler, text)
    return {name: (read.labels[name], read.sides.get(name), read.severities.get(name)) for name in CLASSES if name not in but}
