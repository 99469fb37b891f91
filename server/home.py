"""The coordinator's folder: its own file, its keys and certificates, and where the rest is kept."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from rainhill.config import Name, Section, read_toml
from rainhill.errors import ConfigError
from rainhill.files import write_whole

FILE = "coordinator.toml"


class AddressConfig(Section):
    host: str = Field(min_length=1)
    """What sites dial: a name or an address that the certificate is for."""
    port: int = Field(default=9443, ge=1, le=65535)
    bind: str = "0.0.0.0"  # noqa: S104 - sites come from outside
    """The address of this machine that is listened at."""
    private_port: int = Field(default=9444, ge=1, le=65535)
    """On 127.0.0.1, for the coordinator's own processes."""


class DatabaseConfig(Section):
    url: str = ""
    """SQLAlchemy's; a file in the coordinator's folder where empty. For PostgreSQL: postgresql+psycopg://USER@HOST/NAME."""


class CoordinatorConfig(Section):
    """A consortium's own file."""

    name: Name
    title: str = ""
    address: AddressConfig
    database: DatabaseConfig = DatabaseConfig()


@dataclass(frozen=True, kw_only=True)
class Home:
    folder: Path
    config: CoordinatorConfig

    @classmethod
    def open(cls, folder: Path) -> "Home":
        """ConfigError where there is none."""
        if not (folder / FILE).exists():
            raise ConfigError(f"{folder / FILE}: no such file; `rainhill coordinator init` makes a coordinator in a folder")
        return cls(folder=folder.absolute(), config=read_toml(folder / FILE, CoordinatorConfig))

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def authority_key(self) -> Path:
        return self.keys / "authority.key"

    @property
    def server_key(self) -> Path:
        return self.keys / "server.key"

    @property
    def consortium_key(self) -> Path:
        """Ed25519, 32 bytes as hex: signs bundles and recipes."""
        return self.keys / "consortium.key"

    @property
    def secret(self) -> Path:
        """What the coordinator's own processes show one another."""
        return self.keys / "secret"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    @property
    def database_url(self) -> str:
        return self.config.database.url or f"sqlite:///{self.folder / 'rainhill.sqlite'}"

    @property
    def link_database(self) -> Path:
        """Flower's own, which may be deleted whenever nothing runs."""
        return self.folder / "flower.sqlite"


def written_secret(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, secrets.token_hex(32).encode(), private=True)


def operator() -> str:
    """Who runs the command, for the record of what was done."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
