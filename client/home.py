"""A hospital's own folder: what its file calls `state`. Its keys, what the consortium gave it, its ledger."""

from dataclasses import dataclass
from pathlib import Path

from rainhill.bundle import Bundle, read_manifest

from client.identity import Identity, load
from rainhill.config import SiteConfig, read_toml
from rainhill.errors import CredentialError


@dataclass(frozen=True, kw_only=True)
class SiteHome:
    config: SiteConfig
    state: Path

    @classmethod
    def open(cls, site_file: Path) -> "SiteHome":
        """Of the site of this file. Looks at nothing but the file."""
        config = read_toml(site_file, SiteConfig)
        state = config.state.expanduser() if config.state else Path(f"{config.name}-state")
        return cls(config=config, state=site_file.absolute().parent / state)

    @property
    def keys(self) -> Path:
        return self.state / "identity"

    @property
    def consortium(self) -> Path:
        """What the bundle held, once the site has joined."""
        return self.state / "consortium"

    @property
    def ca(self) -> Path:
        return self.consortium / "ca.crt"

    def identity(self) -> Identity:
        """CredentialError where the site has none, or others may read it."""
        if not self.keys.exists():
            raise CredentialError(f"{self.config.name}: has no keys in {self.keys}; `rainhill site init` makes them")
        return load(self.keys)

    def bundle(self) -> Bundle:
        """What the consortium told. CredentialError where the site has not joined one."""
        if not self.consortium.exists():
            raise CredentialError(f"{self.config.name}: has joined no consortium; `rainhill site join` does, with the coordinator's bundle")
        return read_manifest(self.consortium)
