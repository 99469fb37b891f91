"""Where a coordinator is reached: a host's name or IP address, and a port."""

import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field

from rainhill.toml import Section

# RFC 1123, section 2.1: labels of letters, digits and inner hyphens. Underscores are no part of a host's name.
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST = 253


def is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def checked_host(host: str) -> str:
    """Raises ValueError for what is neither an IP address nor the name of a host, in the one spelling that certificates know."""
    if is_ip(host):
        if str(ip_address(host)) != host or "%" in host:
            raise ValueError(f"an IP address is written {str(ip_address(host)).partition('%')[0]}")
        return host
    # A name that ends in digits is read as an IPv4 address by some, RFC 1123.
    if len(host) > _LONGEST or not _DNS.fullmatch(host) or host.rpartition(".")[2].isdigit():
        raise ValueError("a host is an IP address, or a name of lower-case letters, digits, hyphens and dots")
    return host


Host = Annotated[str, AfterValidator(checked_host)]


class Address(Section):
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
