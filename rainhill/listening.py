"""Where a daemon listens besides its own line: for Prometheus, and for people with a browser."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from rainhill.toml import PathName, Section

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


def _ip(address: str) -> str:
    ip_address(address)
    return address


class MetricsConfig(Section):
    """Where a daemon tells Prometheus how it is, in plain HTTP: whoever reaches it can read it, and change nothing."""

    port: int = Field(default=0, ge=0, le=65535)
    """0: nowhere."""
    bind: Annotated[str, AfterValidator(_ip)] = "127.0.0.1"
    """IP address of this machine that is listened at."""


class OidcConfig(Section):
    """Signing in with the house's own accounts. OpenID Connect Core 1.0, the authorization code flow with PKCE (RFC 7636)."""

    issuer: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    """URL below which /.well-known/openid-configuration is found. Plain http only on this machine's own loopback."""
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: PathName | None = None
    """File that holds it, which only its owner may read; none for a public client. A relative path starts from the folder of this file."""
    label: Annotated[str, Field(min_length=1, max_length=60)] = "the house's own account"
    """What people know it as: they read "Sign in with" before it."""
    name_claim: Annotated[str, Field(min_length=1)] = "preferred_username"
    """Claim of the ID token that says who somebody is: what is written where they decide something."""
    role_claim: Annotated[str, Field(min_length=1)] = "groups"
    """Claim that lists the groups somebody is in, or says the one."""
    roles: Mapping[str, str]
    """Group -> role here. Who is in none of them is not let in; who is in several has the role that is named first."""
    scopes: tuple[Annotated[str, Field(pattern=r"^\S+$")], ...] = ("openid", "profile")

    @model_validator(mode="after")
    def _is_private(self) -> "OidcConfig":
        host = urlsplit(self.issuer).hostname or ""
        if self.issuer.startswith("http://") and host not in LOOPBACK_HOSTS:
            raise ValueError(f"issuer = {self.issuer!r}: beyond this machine it is asked by https only")
        if "openid" not in self.scopes:
            raise ValueError(f"scopes = {', '.join(self.scopes) or 'none'}: openid is missing")
        if not self.roles:
            raise ValueError("roles: names no group, so nobody could sign in")
        return self


class ConsoleConfig(Section):
    """Where people look at this daemon with a browser, and decide. It is served once somebody may sign in."""

    port: int = Field(ge=0, le=65535)
    """0: nowhere."""
    bind: Annotated[str, AfterValidator(_ip)] = "127.0.0.1"
    """IP address of this machine that is listened at."""
    certificate: PathName | None = None
    key: PathName | None = None
    """PEM files for https, needed where `bind` is not the machine's own loopback. Relative paths start from the folder of this file."""
    url: Annotated[str, Field(pattern=r"^(https?://[^\s/?#]+)?$")] = ""
    """What browsers reach it by, where that is not https or http, `bind` and `port`: the name in the certificate, or a proxy before it."""
    oidc: OidcConfig | None = None
    """Beside local accounts."""

    @model_validator(mode="after")
    def _passwords_cross_no_network_in_clear(self) -> "ConsoleConfig":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: one is given without the other")
        if not ip_address(self.bind).is_loopback and self.certificate is None:
            raise ValueError(f"bind = {self.bind!r}: beyond the machine's own loopback, certificate and key are needed")
        if self.url.startswith("http://") and (urlsplit(self.url).hostname or "") not in LOOPBACK_HOSTS:
            raise ValueError(f"url = {self.url!r}: beyond the machine's own loopback it is reached by https only")
        return self

    @property
    def origin(self) -> str:
        """As a browser names it: RFC 6454, section 6.1."""
        if self.url:
            return self.url
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"
