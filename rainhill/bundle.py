"""What a consortium gives to a site, as one zip file: a signed manifest, the CA, base weights and wheels.

Nothing is taken from it that the manifest does not name, and every byte of what it names is held against the manifest's digests.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from rainhill import signed, weights, zipped
from rainhill.enrolment import BUNDLE, Bundle, BundledBase, BundledWheel, read_document
from rainhill.errors import CredentialError
from rainhill.files import folder_whole, written_whole
from rainhill.text import shown

MANIFEST, CA, BASES, WHEELS = "manifest.json", "ca.crt", "bases", "wheels"
LARGEST_CA = 2**16
"""Bytes of ca.crt, whose size no manifest tells."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


def write_bundle(path: Path, manifest: Bundle, private: bytes, ca: bytes, files: Mapping[str, Path]) -> None:
    """`private` is the consortium's Ed25519 key; `files` are the folder of each base and each wheel, by the manifest's names for them.

    The same manifest and files give the same bytes. Raises CredentialError for what is not as the manifest says; `path` stays as it was.
    """
    _check_key(signed.public_key(private), manifest)
    _same("ca.crt: sha256", hashlib.sha256(ca).hexdigest(), manifest.ca)
    _same("files", sorted(files), sorted([*_bases(manifest), *_wheels(manifest)]))
    envelope = signed.sealed(manifest.canonical(), private, purpose=BUNDLE)
    with written_whole(path) as file, ZipFile(file, "w") as archive:
        archive.writestr(zipped.entry(MANIFEST, len(envelope)), envelope)
        archive.writestr(zipped.entry(CA, len(ca)), ca)
        for name, base in sorted(_bases(manifest).items()):
            _put_base(archive, base, files[name])
        for name, wheel in sorted(_wheels(manifest).items()):
            _same(f"{name}: size", files[name].stat().st_size, wheel.size)
            _same(f"{name}: sha256", zipped.put(archive, files[name], f"{WHEELS}/{name}"), wheel.sha256)


def opened_bundle(path: Path, *, expect: str | None, now: datetime) -> Bundle:
    """The manifest, after every byte was checked. Raises CredentialError for a bundle that does not hold, and names what in it.

    `expect` is the fingerprint of the consortium's key that the site was told another way, by telephone for instance. Without it this
    only says that the bundle is whole and in date, not whose it is.
    """
    return _checked(path, expect, now, lambda _: Path(os.devnull).open("wb"))


def unpack(path: Path, folder: Path, *, expect: str | None, now: datetime) -> Bundle:
    """The same; `folder` then holds manifest.json, ca.crt, bases/NAME/ and wheels/, and nothing of it where anything failed.

    Raises FileExistsError where `folder` is there and is not empty.
    """
    with folder_whole(folder) as part:
        return _checked(path, expect, now, lambda name: written_whole(part / name))


def _checked(path: Path, expect: str | None, now: datetime, write: zipped.Write) -> Bundle:
    with zipped.reading(path) as archive:
        entries = zipped.entries(archive, path)
        if MANIFEST not in entries or entries[MANIFEST].file_size > signed.LARGEST:
            raise CredentialError(f"{path}: holds no {MANIFEST} of at most {signed.LARGEST} bytes")
        envelope = archive.read(entries[MANIFEST])
        try:
            manifest = _manifest(envelope, expect, now)
            _check_sizes(manifest, entries)
            found = {name: zipped.copied(archive, info, write) for name, info in entries.items()}
            _check_digests(manifest, found)
        except CredentialError as error:
            raise CredentialError(f"{path}: {error}") from error
    return manifest


def _manifest(envelope: bytes, expect: str | None, now: datetime) -> Bundle:
    key = signed.Envelope.from_bytes(envelope).key
    if expect is not None and signed.fingerprint(key) != expect:
        # Its own is not said: it would be typed from the screen.
        raise CredentialError(f"is not signed with the key of fingerprint {shown(expect)}: it was changed, or is another consortium's")
    manifest = read_document(signed.opened(envelope, purpose=BUNDLE, trusted=(key,)), Bundle, what=MANIFEST)
    _check_key(key, manifest)
    if now > manifest.expires:
        raise CredentialError(f"expired {manifest.expires:%Y-%m-%d %H:%M:%S} UTC; now is {now:%Y-%m-%d %H:%M:%S}")
    return manifest


def _check_sizes(manifest: Bundle, entries: Mapping[str, ZipInfo]) -> None:
    """Before anything is read: just what the manifest names, and no byte more."""
    sizes = {name: info.file_size for name, info in entries.items()}
    known = {MANIFEST, CA, *(f"{WHEELS}/{file}" for file in _wheels(manifest))}
    missing = sorted(known - set(sizes))
    if missing:
        raise CredentialError(f"holds no {missing[0]}")
    if sizes[CA] > LARGEST_CA:
        raise CredentialError(f"{CA}: size is {sizes[CA]}, more than {LARGEST_CA}")
    for file, wheel in _wheels(manifest).items():
        _same(f"{WHEELS}/{file}: size", sizes[f"{WHEELS}/{file}"], wheel.size)
    for name, base in _bases(manifest).items():
        own = _of_base(name, sizes)
        known |= set(own)
        _same(f"{BASES}/{name}: size", sum(sizes[one] for one in own), base.size)
    unknown = sorted(set(sizes) - known)
    if unknown:
        raise CredentialError(f"holds {shown(unknown[0])}, which {MANIFEST} does not name")


def _check_digests(manifest: Bundle, found: Mapping[str, str]) -> None:
    _same(f"{CA}: sha256", found[CA], manifest.ca)
    for file, wheel in _wheels(manifest).items():
        _same(f"{WHEELS}/{file}: sha256", found[f"{WHEELS}/{file}"], wheel.sha256)
    for name, base in _bases(manifest).items():
        sha256s = {one.rpartition("/")[2]: found[one] for one in _of_base(name, found)}
        _same(f"{BASES}/{name}: sha256", weights.listing_digest(sha256s), base.sha256)


def _of_base(name: str, names: Iterable[str]) -> list[str]:
    """Those that count in the digest of this base; another file in its folder is one that nothing vouches for."""
    folder = f"{BASES}/{name}/"
    return [one for one in names if one.startswith(folder) and _is_pinned(one.removeprefix(folder))]


def _is_pinned(file: str) -> bool:
    return _PLAIN.fullmatch(file) is not None and any(fnmatchcase(file, pattern) for pattern in weights.PINNED)


def _put_base(archive: ZipFile, base: BundledBase, folder: Path) -> None:
    sources = weights.pinned_files(folder)
    _same(f"{BASES}/{base.name}: size", sum(source.stat().st_size for source in sources), base.size)
    for source in sources:
        if not _PLAIN.fullmatch(source.name):
            raise CredentialError(f"{source}: a name in a bundle is letters, digits, dots, hyphens and underscores")
    sha256s = {source.name: zipped.put(archive, source, f"{BASES}/{base.name}/{source.name}") for source in sources}
    _same(f"{BASES}/{base.name}: sha256", weights.listing_digest(sha256s), base.sha256)


def _bases(manifest: Bundle) -> dict[str, BundledBase]:
    return {base.name: base for base in manifest.bases}


def _wheels(manifest: Bundle) -> dict[str, BundledWheel]:
    return {wheel.file: wheel for wheel in manifest.wheels}


def _check_key(key: bytes, manifest: Bundle) -> None:
    _same("consortium_key", manifest.consortium_key, key.hex())


def _same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise CredentialError(f"{what} is {got}, not {expected}")
