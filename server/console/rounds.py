"""One round, site by site."""

from collections.abc import Sequence
from dataclasses import dataclass

from rainhill.messages import RoundRecord, SiteId
from rainhill.told import MEASURES
from server.console.words import number


@dataclass(frozen=True, kw_only=True)
class SiteRound:
    site: SiteId
    answered: bool
    reason: str
    """Why it did not."""
    down: int | None
    up: int | None
    """Bytes."""
    loss: str
    """In words, empty where it did not answer."""
    metrics: Sequence[tuple[str, str]]
    """Name and value, of its own validation patients."""


def round_sites(record: RoundRecord) -> list[SiteRound]:
    """Of all sites that were asked, by name."""
    return [_site(record, site) for site in sorted(record.asked)]


def _site(record: RoundRecord, site: SiteId) -> SiteRound:
    answered = site in record.answered
    told = number(record.losses[site]) if site in record.losses else "withheld"
    return SiteRound(
        site=site,
        answered=answered,
        reason=record.refused.get(site, "" if answered else "gave no answer"),
        down=record.down_bytes.get(site),
        up=record.up_bytes.get(site),
        loss=told if answered else "",
        metrics=[(MEASURES.get(name, name), number(value)) for name, value in sorted(record.evaluations.get(site, {}).items())],
    )
