"""Who is in contact, and how the coordinator's processes do: asked of others, who may hang, and so never waited for long."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rainhill.exposed import WITHIN_S, Part, Seen
from rainhill.messages import SiteId
from server.flower.presence import Presence, presence
from server.home import Home
from server.metrics import PREFIX
from server.registry import Registry
from server.serve import link_of

STALE_S = 15.0
"""For so long what the SuperLink said last is told again, while it is slow to say more."""


@dataclass(frozen=True, kw_only=True)
class Contact(Seen):
    """What the SuperLink knows of the sites that are enrolled."""

    sites: Mapping[SiteId, Presence] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Processes(Seen):
    """What `serve` tells of the processes that it keeps running."""

    restarts: Mapping[str, int] = field(default_factory=dict)
    """Name -> how often it had to be started again, since `serve` began."""


class Watch:
    def __init__(self, home: Home, registry: Registry) -> None:
        self._home, self._registry = home, registry
        self._link = Part("superlink", self._contact, stale_s=STALE_S)
        self._daemon = Part("serve", self._processes, stale_s=STALE_S)

    def contact(self) -> Contact:
        """With the reason in `problem` where the SuperLink does not answer; no site is known of then."""
        self._link.begin()
        seen = self._link.seen(time.monotonic() + WITHIN_S)
        return seen if isinstance(seen, Contact) else Contact(problem=seen.problem or "was not asked yet")

    def processes(self) -> Processes:
        self._daemon.begin()
        seen = self._daemon.seen(time.monotonic() + WITHIN_S)
        return seen if isinstance(seen, Processes) else Processes(problem=seen.problem or "was not asked yet")

    def _contact(self) -> Seen:
        keys = {name: site.node_key.encode() for name, site in self._registry.active().items()}
        try:
            return Contact(sites=presence(link_of(self._home), keys))
        except httpx.HTTPError as error:
            return Seen(problem=str(error) or type(error).__name__)

    def _processes(self) -> Seen:
        where = self._home.config.metrics
        if where.port == 0:
            return Seen(problem="`[metrics] port` is 0")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.bind, where.bind)  # noqa: S104 - where it listens, not where we do
        url = f"http://{f'[{host}]' if ':' in host else host}:{where.port}/metrics"
        try:
            text = httpx.get(url, timeout=2 * WITHIN_S, trust_env=False).raise_for_status().text
        except httpx.HTTPError as error:
            return Seen(problem=str(error) or type(error).__name__)
        families = [one for one in text_string_to_metric_families(text) if one.name == f"{PREFIX}_process_restarts"]
        return Processes(restarts={one.labels["process"]: int(one.value) for family in families for one in family.samples if one.value})
