"""The one file that a site joins with: addresses, certificates, everybody's keys, base models, wheels."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rainhill import signed, weights
from rainhill.address import Address
from rainhill.bundle import write_bundle
from rainhill.enrolment import Bundle, BundledBase, BundledWheel
from rainhill.errors import ConfigError, RefusedError
from rainhill.messages import SiteId
from server.home import Home
from server.registry import Registry


def pack(home: Home, registry: Registry, name: SiteId, *, out: Path, days: int, by: str, wheels: Path | None = None) -> Path:
    """Writes `out`. RefusedError for a site that was revoked, ConfigError for a base model or a folder of wheels that is not there."""
    site = registry.site(name)
    if site.revoked is not None:
        raise RefusedError(f"{name}: was revoked on {site.revoked:%Y-%m-%d} ({site.reason}); `rotate` takes it in again, with new keys")
    config, key, now = home.config, home.key(), datetime.now(UTC)
    bases, files = _bases(home), _wheels(wheels)
    manifest = Bundle(
        consortium=config.name,
        title=config.title,
        site=name,
        coordinator=Address(host=config.address.host, port=config.address.port),
        ca=hashlib.sha256(home.ca.read_bytes()).hexdigest(),
        consortium_key=signed.public_key(key).hex(),
        peers={peer.name: peer.signing_key.hex() for peer in registry.active().values()},
        bases=tuple(_base(base, folder) for base, folder in sorted(bases.items())),
        wheels=tuple(_wheel(path) for _, path in sorted(files.items())),
        made=now,
        expires=now + timedelta(days=days),
    )
    write_bundle(out, manifest, key, home.ca.read_bytes(), bases | files)
    registry.note("bundle", name, by=by, detail={"expires": manifest.expires.isoformat(timespec="seconds")})
    return out


def _bases(home: Home) -> dict[str, Path]:
    found = {name: home.folder / folder.expanduser() for name, folder in home.config.bases.items()}
    for name, folder in found.items():
        if not folder.is_dir():
            raise ConfigError(f"[bases] {name} = {str(home.config.bases[name])!r}: there is no folder {folder}")
    return found


def _base(name: str, folder: Path) -> BundledBase:
    size = sum(path.stat().st_size for path in weights.pinned_files(folder))
    return BundledBase(name=name, sha256=weights.digest(folder), size=size)


def _wheels(folder: Path | None) -> dict[str, Path]:
    found = {path.name: path for path in sorted(folder.glob("*.whl"))} if folder else {}
    if folder is not None and not found:
        raise ConfigError(f"{folder}: holds no wheels; `pip wheel` puts them there")
    return found


def _wheel(path: Path) -> BundledWheel:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BundledWheel(file=path.name, sha256=digest, size=path.stat().st_size)
