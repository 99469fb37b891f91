"""Every arm on every site's test patients, which no fit has seen."""

from collections.abc import Mapping
from dataclasses import dataclass

from client.drafting.track_record import TrackRecord
from client.outcome import scored
from client.training import lora
from client.training.metrics import Measured, Scored
from client.training.personal import Private, private_part
from client.workbench import Bench
from rainhill.adapter import Adapter
from rainhill.errors import DataError
from rainhill.messages import SiteId
from sites.arms import Arm, Trained
from sites.bench import SiteData

CROSS_SITES = 12


@dataclass(frozen=True, kw_only=True)
class Measurements:
    arms: Mapping[SiteId, Mapping[Arm, Scored]]
    cross_site: Mapping[str, Mapping[SiteId, float]]
    """Trained at row, tested at column: the task's measure of each site's own model, and of base, shared and pooled, everywhere.

    With more than `CROSS_SITES` sites, a site's own model is tested at home only: the square of 50 sites takes longer than their training.
    """
    records: Mapping[SiteId, TrackRecord]
    """Of the sites' own models, on their validation patients: below which confidence a draft is abstained, and what they are blind to."""


def measure(
    bench: Bench,
    data: Mapping[SiteId, SiteData],
    *,
    first: Adapter,
    local: Trained,
    shared: Mapping[SiteId, Adapter],
    private: Trained,
    pooled: Adapter,
) -> Measurements:
    """`shared` is the federated adapter as each site has it."""
    arms: dict[SiteId, dict[Arm, Scored]] = {site: {} for site in data}
    cross: dict[str, dict[SiteId, float]] = {}
    records: dict[SiteId, TrackRecord] = {}
    common: dict[Arm, Mapping[SiteId, Adapter]] = {
        "base": dict.fromkeys(data, first),
        "shared": shared,
        "pooled": dict.fromkeys(data, pooled),
    }
    for arm, adapters in common.items():
        cross[arm] = {}
        for site, own in data.items():
            arms[site][arm] = score(bench, own, adapters[site])
            cross[arm][site] = _measure(bench, arms[site][arm])
    for site, own in data.items():
        with private_part(bench.net, shared[site], private.private[site], bench.recipe) as temperature:
            arms[site]["private"] = scored(bench, own.test, site, temperature=temperature)
            if (record := bench.task.track_record(bench.net, own.val)) is not None:
                records[site] = record
        with private_part(bench.net, local.adapters[site], local.private[site], bench.recipe) as temperature:
            arms[site]["local"] = scored(bench, own.test, site, temperature=temperature)
            cross[site] = {site: _measure(bench, arms[site]["local"])}
            others = {other: theirs for other, theirs in data.items() if other != site} if len(data) <= CROSS_SITES else {}
            for other, theirs in others.items():
                cross[site][other] = bench.task.value(bench.net, theirs.test, bench.recipe.evaluation)
    rows = ("base", *data, "shared", "pooled")
    return Measurements(arms=arms, cross_site={row: cross[row] for row in rows}, records=records)


def score(bench: Bench, own: SiteData, adapter: Adapter, private: Private | None = None) -> Scored:
    """A site's test patients by the adapter, with the site's private part where there is one."""
    if private is None:
        lora.write_adapter(bench.net, adapter, name=lora.SHARED)
        return scored(bench, own.test, own.cohort.site)
    with private_part(bench.net, adapter, private, bench.recipe) as temperature:
        return scored(bench, own.test, own.cohort.site, temperature=temperature)


def measure_of(bench: Bench, own: SiteData, adapter: Adapter, private: Private | None = None) -> Measured:
    """The task's measure alone; DataError where there is none."""
    means = score(bench, own, adapter, private).means
    if not means:
        raise DataError(f"{own.cohort.site}: no finding has enough test images of both classes to be compared")
    return means[bench.task.measure]


def _measure(bench: Bench, scored: Scored) -> float:
    return scored.means[bench.task.measure].value if scored.means else float("nan")
