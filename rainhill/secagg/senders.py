"""One message of each site at a time."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from rainhill.errors import ProtocolError
from rainhill.messages import SiteId


class _Sent(Protocol):
    @property
    def site(self) -> SiteId: ...


_Message = TypeVar("_Message", bound=_Sent)


def by_site(messages: Iterable[_Message], allowed: Iterable[SiteId], did: str) -> dict[SiteId, _Message]:
    """In the order of their names; ProtocolError for a stranger or for a second message."""
    of, found = frozenset(allowed), dict[SiteId, _Message]()
    for message in messages:
        if message.site not in of:
            raise ProtocolError(f"{message.site!r}: {did}, and is not one of the {len(of)} sites that may")
        if message.site in found:
            raise ProtocolError(f"{message.site}: {did} twice in one round")
        found[message.site] = message
    return dict(sorted(found.items()))
