"""Versions of the wire form: a reader takes the newest and the one before, so that no consortium has to update in one night.

One step leads from each version to the next, and one back. With a new version the oldest steps go.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rainhill.errors import ProtocolError
from rainhill.text import shown

VERSION = 3
VERSIONS = (VERSION - 1, VERSION)
"""All that are read, and can be written."""
UPDATE = "pip install -U rainhill"

Header = dict[str, Any]
_Step = Callable[[Header], Header]


def agreed(theirs: Sequence[int]) -> int:
    """The highest version that the coordinator, whose side this is, and a site that speaks `theirs` have in common.

    ProtocolError that names both and says who has to update.
    """
    common = set(theirs) & set(VERSIONS)
    if not common:
        older = "coordinator" if max(theirs, default=0) > VERSION else "site"
        raise ProtocolError(
            f"the site speaks {_listed(theirs)} of the wire form, the coordinator {_listed(VERSIONS)}: "
            f"update Rainhill at the {older}: {UPDATE}"
        )
    return max(common)


def check_version(version: object) -> int:
    """ProtocolError that says what to do for a version that is not read here."""
    if type(version) is int and version in VERSIONS:
        return version
    newer = type(version) is int and version > VERSION
    raise ProtocolError(
        f"message version {shown(repr(version))} is not {' or '.join(map(str, VERSIONS))}: "
        f"update Rainhill {'here' if newer else 'where it was written'}: {UPDATE}"
    )


def upgraded(header: Header) -> Header:
    """Of VERSION, with what its own version implied; ProtocolError for what its version could not have said."""
    for version in range(check_version(header.get("version")), VERSION):
        header = {**_UP[version](header), "version": version + 1}
    return header


def downgraded(header: Header, version: int) -> Header:
    """Of an older version; ProtocolError that names the field for what that one cannot say."""
    for newer in range(VERSION, check_version(version), -1):
        header = {**_DOWN[newer](header), "version": newer - 1}
    return header


def _same_as_2(header: Header) -> Header:
    """Version 2 had the fields of version 3. It withheld nothing, asked for no time, and was there before secure aggregation.

    Its epsilon was of one update; as version 3 understands it, of the whole run, it would promise more than was meant.
    """
    kind = header.get("kind")
    if kind not in ("plan", "update", "refusal"):
        raise _unsaid("kind", kind)
    if kind == "update":
        evaluation = header.get("evaluation")
        for field, said in (
            ("patients", header.get("patients")),
            ("loss", header.get("loss")),
            ("evaluation.patients", evaluation.get("patients") if isinstance(evaluation, dict) else 0),
        ):
            if said is None:
                raise _unsaid(field, None)
        if header.get("epsilon") is not None:
            raise _unsaid("epsilon", header["epsilon"])
    return header


_UP: Mapping[int, _Step] = {2: _same_as_2}
"""A header of version n as one of n + 1."""
_DOWN: Mapping[int, _Step] = {3: _same_as_2}
"""A header of version n as one of n - 1."""


def _unsaid(field: str, value: object) -> ProtocolError:
    return ProtocolError(f"{field} = {shown(repr(value))}: version 2 of the wire form has no way to say it; to update: {UPDATE}")


def _listed(versions: Sequence[int]) -> str:
    # A site may name what it likes; an error is one line.
    return f"version {shown(', '.join(map(str, versions)))}" if versions else "no version"
