"""The coordinator's folder: its own file, its keys and certificates, and where the rest is kept."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field, model_validator

from rainhill import signed
from rainhill.address import Host
from rainhill.config import Name
from rainhill.enrolment import Line, ShortName
from rainhill.errors import ConfigError
from rainhill.files import folder_whole, keep_new, read_private, write_whole
from rainhill.listening import ConsoleConfig, MetricsConfig
from rainhill.toml import Section, parse, read_toml
from server.authority import Authority, Server, load_authority, load_server, new_authority, server_certificate
from server.database import Database

FILE = "coordinator.toml"
AUTHORITY_DAYS, SERVER_DAYS = 3650, 398
"""Of a new authority and of a certificate by it. 398 days is the most that browsers take."""
WARN_DAYS = 30
"""Before it expires, a certificate is warned of."""


class AddressConfig(Section):
    host: Host
    """What sites dial: a name or an IP address, which the certificate is for."""
    more_hosts: tuple[Host, ...] = ()
    """Further names and addresses that it is reached by."""
    port: int = Field(default=9443, ge=1, le=65535)
    bind: Host = "0.0.0.0"  # noqa: S104 - sites come from outside
    """The address of this machine that is listened at."""
    private_port: int = Field(default=9444, ge=1, le=65535)
    """On 127.0.0.1, for the coordinator's own processes."""

    @model_validator(mode="after")
    def _two_ports(self) -> "AddressConfig":
        if self.port == self.private_port:
            raise ValueError(f"port and private_port are both {self.port}: what is private would be open to the network")
        return self


class DatabaseConfig(Section):
    url: str = ""
    """SQLAlchemy's; a file in the coordinator's folder where empty. For PostgreSQL: postgresql+psycopg://USER@HOST/NAME."""


class CoordinatorMetricsConfig(MetricsConfig):
    port: int = Field(default=9445, ge=0, le=65535)
    """0: nowhere."""


class CoordinatorConsoleConfig(ConsoleConfig):
    port: int = Field(default=9446, ge=0, le=65535)
    """0: nowhere."""


class CoordinatorConfig(Section):
    """A consortium's own file."""

    name: ShortName
    title: Line = ""
    address: AddressConfig
    database: DatabaseConfig = DatabaseConfig()
    metrics: CoordinatorMetricsConfig = CoordinatorMetricsConfig()
    console: CoordinatorConsoleConfig = CoordinatorConsoleConfig()
    bases: Mapping[Name, Path] = {}
    """Base models that go into the bundles: name -> folder, relative to this file."""

    @model_validator(mode="after")
    def _a_port_of_its_own(self) -> "CoordinatorConfig":
        taken = {self.address.port: "address.port", self.address.private_port: "address.private_port"}
        for name, port in (("metrics.port", self.metrics.port), ("console.port", self.console.port)):
            if port and (other := taken.setdefault(port, name)) != name:
                raise ValueError(f"{name} and {other} are both {port}")
        return self


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
    def authority(self) -> Path:
        """Folder of the consortium's own certificate authority; not there where its certificates come from elsewhere."""
        return self.folder / "authority"

    @property
    def tls(self) -> Path:
        """Folder of ca.crt, server.crt and server.key."""
        return self.folder / "tls"

    @property
    def ca(self) -> Path:
        return self.tls / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.tls / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.tls / "server.key"

    @property
    def secret(self) -> Path:
        """What the coordinator's own processes show one another."""
        return self.folder / "keys" / "secret"

    @property
    def key_file(self) -> Path:
        return self.folder / "keys" / "consortium.key"

    def key(self) -> bytes:
        """The Ed25519 private key that signs bundles and recipes."""
        return signed.read_key(self.key_file)

    @property
    def fingerprint(self) -> str:
        return signed.fingerprint(signed.public_key(self.key()))

    @property
    def hosts(self) -> tuple[str, ...]:
        return (self.config.address.host, *self.config.address.more_hosts)

    @property
    def database_url(self) -> str:
        return self.config.database.url or f"sqlite:///{self.folder / 'rainhill.sqlite'}"

    @property
    def adapters(self) -> Path:
        """Folder of the adapters that runs begin from and end with, each named by its fingerprint."""
        return self.folder / "adapters"

    def adapter_file(self, fingerprint: str) -> Path:
        return self.adapters / f"{fingerprint}.safetensors"

    @property
    def runs(self) -> Path:
        """Folder of what runs leave behind, each in a folder of its name."""
        return self.folder / "runs"

    @property
    def link_database(self) -> Path:
        """Flower's own, which may be deleted whenever nothing runs."""
        return self.folder / "flower.sqlite"


def begin(folder: Path, document: Mapping[str, Any], own: Server | None = None) -> Home:
    """A new coordinator with this for its file, there whole or not at all; `own` are certificates that the consortium brings.

    ConfigError where one is there already, or for what the file would say; DatabaseError where its database cannot be reached.
    """
    if (folder / FILE).exists():
        raise ConfigError(f"{folder / FILE}: is there already; a second coordinator goes into a folder of its own")
    config = parse(dict(document), CoordinatorConfig, origin=f"a new {FILE}")
    if config.database.url:
        Database.open(config.database.url).close()
    with folder_whole(folder.absolute()) as made:
        home = Home(folder=made, config=config)
        if own is None:
            authority = new_authority(config.name, days=AUTHORITY_DAYS, now=datetime.now(UTC))
            authority.keep(home.authority)
            own = _issued(home, authority)
        own.keep(home.tls)
        keep_new(
            home.secret.parent, {home.key_file.name: signed.key_to_pem(signed.new_key()), home.secret.name: secrets.token_hex(32).encode()}
        )
        write_whole(made / FILE, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)).encode())
    return Home.open(folder)


def renew(home: Home) -> Server:
    """A new certificate by the same authority, which sites trust already. CredentialError where the authority is somebody else's."""
    server = _issued(home, load_authority(home.authority))
    server.keep(home.tls)
    return server


def checked(home: Home) -> Server:
    """What the SuperLink answers TLS with. CredentialError where it would not hold for those who dial, with the file that is wrong."""
    return load_server(home.ca, home.certificate, home.server_key, hosts=home.hosts, now=datetime.now(UTC))


def secret_of(home: Home) -> bytes:
    return read_private(home.secret)


def _issued(home: Home, authority: Authority) -> Server:
    return server_certificate(authority, home.hosts, days=SERVER_DAYS, now=datetime.now(UTC))
