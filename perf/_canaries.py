"""What must not leave one hospital, taken from its own folder, and a search for it in what crossed, also where that is encoded."""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SHORTEST = 8
"""Bytes: what is shorter is found in anything by chance, and is not looked for."""
RUNS = ((8, 1021), (16, 509), (64, 2039))
"""Of pixels: length, and bytes from one to the next, odd so that they begin at every place of a row."""
VARIED = 5
"""Different bytes that the first eight of a run hold at least: an even background is nobody's."""
_WORD = np.dtype("<u8")
_ENCODED = (re.compile(rb"[A-Za-z0-9+/]{16,}"), re.compile(rb"[A-Za-z0-9_-]{16,}"))
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
_PACKED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_DEPTH = 2
"""Encodings that are opened one within another."""
_MOST = 2**26
"""Bytes that are unpacked of one stream."""


@dataclass(frozen=True, kw_only=True)
class Found:
    kind: str
    """Such as `stored pixels`."""
    name: str
    """Of what: never to be shown outside the hospital."""
    within: str
    """Where it was found."""


@dataclass(kw_only=True)
class Canaries:
    """Bytes that are looked for, each by its first eight."""

    _values: list[bytes] = field(default_factory=list)
    _about: list[tuple[str, str]] = field(default_factory=list)
    _lower: list[bool] = field(default_factory=list)
    _seen: set[tuple[str, bytes]] = field(default_factory=set)
    too_short: int = 0
    """That were not taken."""

    def __len__(self) -> int:
        return len(self._values)

    def kinds(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for kind, _ in self._about:
            counted[kind] = counted.get(kind, 0) + 1
        return counted

    def of_kind(self, kind: str) -> list[bytes]:
        return [value for value, (its, _) in zip(self._values, self._about, strict=True) if its == kind]

    def secret(self, kind: str, name: str, value: bytes) -> None:
        """Bytes as they are, and every piece of 16 of them."""
        for start in range(max(1, len(value) - 15)):
            self._add(kind, name, value[start : start + 16], lower=False)

    def text(self, kind: str, text: str) -> None:
        """In UTF-8 and UTF-16, whatever its case."""
        for encoding in ("utf-8", "utf-16-le"):
            self._add(kind, text, text.lower().encode(encoding), lower=True)

    def runs(self, kind: str, name: str, data: bytes) -> None:
        """Runs of pixels of several lengths, over all of them."""
        for length, step in RUNS:
            for start in range(0, len(data) - length + 1, step):
                run = data[start : start + length]
                if len(set(run[:SHORTEST])) >= VARIED:
                    self._add(kind, name, run, lower=False)

    def _add(self, kind: str, name: str, value: bytes, *, lower: bool) -> None:
        if len(value) < SHORTEST:
            self.too_short += 1
            return
        if (kind, value) in self._seen:
            return
        self._seen.add((kind, value))
        self._values.append(value)
        self._about.append((kind, name))
        self._lower.append(lower)

    def found(self, crossed: Iterable[tuple[str, bytes]]) -> list[Found]:
        """Each canary at most once for each name of what crossed, in whatever of the encodings."""
        told: dict[tuple[int, str], Found] = {}
        indexes = [(lower, *self._index(lower=lower)) for lower in (False, True)]
        for within, data in crossed:
            for how, view in views(data):
                for lower, keys, numbers in indexes:
                    for number in self._hits(view.lower() if lower else view, keys, numbers):
                        kind, name = self._about[number]
                        told.setdefault((number, within), Found(kind=kind, name=name, within=f"{within}{how}"))
        return list(told.values())

    def _index(self, *, lower: bool) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The first eight bytes of each as a number, in order; and which one each is."""
        numbers = np.flatnonzero(np.asarray(self._lower, dtype=bool) == lower)
        keys = np.frombuffer(b"".join(self._values[n][:SHORTEST] for n in numbers), dtype=_WORD)
        order = np.argsort(keys, kind="stable")
        return keys[order], numbers[order]

    def _hits(self, data: bytes, keys: NDArray[np.uint64], numbers: NDArray[np.int64]) -> Iterator[int]:
        if not len(keys):
            return
        for shift in range(min(SHORTEST, max(0, len(data) - SHORTEST + 1))):
            words = np.frombuffer(data, dtype=_WORD, offset=shift, count=(len(data) - shift) // SHORTEST)
            lows = np.searchsorted(keys, words, "left")
            for place in np.flatnonzero(keys[np.minimum(lows, len(keys) - 1)] == words):
                at, high = shift + SHORTEST * int(place), np.searchsorted(keys, words[place], "right")
                for number in numbers[lows[place] : high]:
                    if data.startswith(self._values[number], at):
                        yield int(number)


def views(data: bytes, depth: int = _DEPTH) -> Iterator[tuple[str, bytes]]:
    """The bytes, and what base64, hexadecimal digits, zlib and gzip in them hold, one within another."""
    yield "", data
    if depth == 0:
        return
    for how, opened in _opened(data):
        for further, view in views(opened, depth - 1):
            yield f", {how}{further}", view


def _opened(data: bytes) -> Iterator[tuple[str, bytes]]:
    for alphabet, also in zip(_ENCODED, (b"+/", b"-_"), strict=True):
        # All stretches at once, apart: one search for many of them.
        stretches = [match.group() for match in alphabet.finditer(data)]
        for skip in range(4):
            found = b"\n".join(_from_base64(stretch[skip:], also) for stretch in stretches)
            if found.strip(b"\n"):
                yield "base64", found
    digits = [match.group() for match in _HEX.finditer(data)]
    for skip in range(2):
        found = b"\n".join(_from_hex(stretch[skip:]) for stretch in digits)
        if found.strip(b"\n"):
            yield "hexadecimal", found
    for match in _PACKED.finditer(data):
        unpacked = _unpacked(data[match.start() : match.start() + _MOST])
        if len(unpacked) >= SHORTEST:
            yield "packed", unpacked


def _from_base64(stretch: bytes, also: bytes) -> bytes:
    # One character beyond four holds no byte; of two or three the padding may be missing.
    whole = stretch[: len(stretch) - (len(stretch) % 4 == 1)]
    return base64.b64decode(whole + b"=" * (-len(whole) % 4), altchars=also)


def _from_hex(stretch: bytes) -> bytes:
    return binascii.unhexlify(stretch[: len(stretch) // 2 * 2])


def _unpacked(data: bytes) -> bytes:
    """As far as it goes; empty for what only looks like the beginning of a packed stream."""
    with suppress(zlib.error):
        return zlib.decompressobj(wbits=47).decompress(data, _MOST)
    return b""
