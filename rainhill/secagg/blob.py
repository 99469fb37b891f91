"""A message as bytes: one safetensors blob with a JSON header, of which there is only one spelling. Never pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rainhill.errors import ProtocolError
from rainhill.messages import SiteId
from rainhill.secagg.quantise import Words
from rainhill.secagg.terms import Terms
from rainhill.toml import Section

VERSION = 1
_HEADER = "rainhill-secagg"
_FRAME = 4096
"""Bytes that are enough for all of a message but its sites, rows and vector."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a kind of message may hold: the bytes of a row, by site, in each of its two tables, and whether a vector comes with it."""

    kind: str
    row: int = 0
    other: int = 0
    vector: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Blob:
    site: SiteId = ""
    """Whom it is from or, if the coordinator sends it, for; empty for all."""
    rows: Mapping[SiteId, bytes] = field(default_factory=dict)
    others: Mapping[SiteId, bytes] = field(default_factory=dict)
    vector: Words | None = None


class _Header(Section):
    kind: str
    version: int
    terms: str
    site: str
    rows: tuple[str, ...]
    others: tuple[str, ...]


def to_bytes(blob: Blob, form: Form, terms: Terms) -> bytes:
    header = _Header(
        kind=form.kind,
        version=VERSION,
        terms=terms.digest,
        site=blob.site,
        rows=tuple(sorted(blob.rows)),
        others=tuple(sorted(blob.others)),
    )
    tables = {"rows": _table(blob.rows, form.row), "others": _table(blob.others, form.other)}
    arrays: dict[str, NDArray[Any]] = {name: table for name, table in tables.items() if table.size}
    if blob.vector is not None:
        arrays["vector"] = blob.vector
    return bytes(save(arrays, metadata={_HEADER: header.model_dump_json()}))


def from_bytes(data: bytes, form: Form, terms: Terms) -> Blob:
    """ProtocolError for whatever is not exactly what `to_bytes` makes of a message of this kind, in these terms."""
    most = _largest(form, terms)
    if len(data) > most:
        raise ProtocolError(f"{form.kind}: {len(data)} bytes, at most {most} are taken")
    header = _header(data, form)
    for what, got, expected in (
        ("kind", header.kind, form.kind),
        ("version", header.version, VERSION),
        ("terms", header.terms, terms.digest),
    ):
        if got != expected:
            raise ProtocolError(f"{form.kind} of {header.site or 'the coordinator'}: {what} {got!r} is not {expected!r}")
    strangers = {*header.rows, *header.others, header.site or terms.sites[0]} - set(terms.sites)
    if strangers:
        raise ProtocolError(f"{form.kind}: {min(strangers)!r} is not one of the {len(terms.sites)} sites of the round")
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ProtocolError(f"{form.kind}: not a safetensors message: {error}") from error
    blob = Blob(
        site=header.site,
        rows=_by_site(arrays, "rows", header.rows, form.row),
        others=_by_site(arrays, "others", header.others, form.other),
        vector=_vector(arrays, form, terms),
    )
    # Twice the same site, other orders, further tensors, spaces: whatever is left differs from the one spelling.
    if to_bytes(blob, form, terms) != data:
        raise ProtocolError(f"{form.kind} of {header.site or 'the coordinator'}: {len(data)} bytes that are not its canonical form")
    return blob


def _header(data: bytes, form: Form) -> _Header:
    # safetensors: 8 bytes of little-endian length, then a JSON object whose "__metadata__" is ours.
    try:
        length = int.from_bytes(data[:8], "little")
        return _Header.model_validate_json(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
    except ValidationError as error:
        raise ProtocolError(f"{form.kind}: header: {error.errors()[0]['msg']}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"{form.kind}: not a message of secure aggregation ({len(data)} bytes)") from error


def _table(rows: Mapping[SiteId, bytes], width: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows[site] for site in sorted(rows)), dtype=np.uint8).reshape(len(rows), width)


def _by_site(arrays: Mapping[str, NDArray[Any]], name: str, sites: tuple[SiteId, ...], width: int) -> dict[SiteId, bytes]:
    table = arrays.get(name, np.empty((0 if width else len(sites), width), np.uint8))
    if table.dtype != np.uint8 or table.shape != (len(sites), width):
        raise ProtocolError(f"{name}: {table.dtype} of shape {table.shape} is not uint8 of shape {(len(sites), width)}")
    return {site: row.tobytes() for site, row in zip(sites, table, strict=True)}


def _vector(arrays: Mapping[str, NDArray[Any]], form: Form, terms: Terms) -> Words | None:
    if not form.vector:
        return None
    vector = arrays.get("vector", np.empty(0, np.uint8))
    if vector.dtype != terms.quantiser.dtype or vector.shape != (terms.layout.size,):
        expected = f"{terms.quantiser.dtype} of shape {(terms.layout.size,)}"
        raise ProtocolError(f"vector: {vector.dtype} of shape {vector.shape} is not {expected}")
    return vector


def _largest(form: Form, terms: Terms) -> int:
    # A name may be escaped twice: in the header, and the header in the blob.
    names = sum(2 * len(json.dumps(json.dumps(site))) + form.row + form.other for site in terms.sites)
    return _FRAME + names + form.vector * terms.layout.size * terms.quantiser.ring // 8
