"""What the coordinator tells Prometheus: its sites, runs, rounds, processes and certificates, and no loss, score or word of a site's."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import get_args

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import rainhill
from rainhill.errors import RainhillError
from rainhill.exposed import Exposed, Part, Seen
from rainhill.messages import SiteId
from rainhill.supervise import Child
from server.chain import days_left
from server.flower.link import Link
from server.flower.presence import presence, refused_calls
from server.home import Home, checked
from server.registry import Registry, Site
from server.runs import ACTIVE, Run, Runs, RunState, Standing
from server.tally import Done, Tally, crossed, refusals

PREFIX = "rainhill_coordinator"
NEWEST = 50
"""Runs that are told of one by one, besides those that are active: labels must not grow for ever."""
BUCKETS_S = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0)
"""Of a round's length."""
Rounds = Mapping[tuple[str, int], Done]


def coordinator_metrics(home: Home, link: Link, registry: Registry, children: Sequence[Child]) -> Exposed:
    """`children` are the processes that are kept running; the list may change."""
    kept = _Kept(registry)
    parts = [
        Part("database", kept.seen),
        Part("superlink", lambda: _superlink(link, kept.keys())),
        Part("certificates", lambda: _certificates(home)),
        Part("processes", lambda: _processes(home, list(children))),
    ]
    return Exposed(PREFIX, parts)


class _Kept:
    """What the database keeps."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._runs, self._tally = registry, Runs(database=registry.database), Tally(registry.database)
        self._keys: Mapping[SiteId, bytes] | None = None

    def seen(self) -> Seen:
        sites, every, rounds = self._registry.sites(), self._runs.runs(), self._tally.rounds()
        self._keys = _keys(sites)
        told = [run for place, run in enumerate(every) if place < NEWEST or run.state in ACTIVE]
        standings = {run.name: self._runs.standings(run.name) for run in told if run.state in ACTIVE}
        moved = _moved(told, standings, rounds, self._tally.resumed())
        return Seen(metrics=[*_of_sites(sites, standings), *_of_runs(every, told, rounds, moved), *_of_rounds(rounds)])

    def keys(self) -> Mapping[SiteId, bytes]:
        """Of the sites that are enrolled, as the database last said: the SuperLink is asked of them while the database is gone."""
        return _keys(self._registry.sites()) if self._keys is None else self._keys


def _keys(sites: Sequence[Site]) -> Mapping[SiteId, bytes]:
    return {site.name: site.node_key.encode() for site in sites if site.revoked is None}


def _of_sites(sites: Sequence[Site], standings: Mapping[str, Mapping[SiteId, Standing]]) -> list[Metric]:
    counted = Counter("revoked" if site.revoked else "enrolled" for site in sites)
    by_state = GaugeMetricFamily(f"{PREFIX}_sites", "Sites by their place in the registry", labels=["state"])
    for state in ("enrolled", "revoked"):
        by_state.add_metric([state], counted[state])
    stands = GaugeMetricFamily(
        f"{PREFIX}_run_standing", "1 for how a site stands to a run that is offered or running", labels=["run", "site", "standing"]
    )
    for run, known in standings.items():
        for site, one in known.items():
            stands.add_metric([run, site, one.state], 1)
    return [by_state, stands]


def _of_runs(every: Sequence[Run], told: Sequence[Run], rounds: Rounds, moved: Mapping[str, datetime]) -> list[Metric]:
    counted, done = Counter(run.state for run in every), Counter(run for run, _ in rounds)
    last = {run: one.seconds for (run, _), one in rounds.items()}
    by_state = GaugeMetricFamily(f"{PREFIX}_runs", "Runs by their state", labels=["state"])
    for state in get_args(RunState):
        by_state.add_metric([state], counted[state])
    states = GaugeMetricFamily(f"{PREFIX}_run_state", "1 for the state that a run is in", labels=["run", "state"])
    for run in told:
        states.add_metric([run.name, run.state], 1)
    asked = {run.name: json.loads(run.recipe_json)["rounds"] for run in told}
    return [
        by_state,
        states,
        _each("run_rounds_asked", "Rounds that a run is to have", {name: section["count"] for name, section in asked.items()}),
        _each("run_rounds_done", "Rounds of a run that are done", {name: done[name] for name in asked}),
        _each("run_deadline_seconds", "How long a round of a run may take", {name: one["deadline_s"] for name, one in asked.items()}),
        _each("run_last_round_seconds", "Length of the last round of a run", {name: last[name] for name in asked if name in last}),
        _each(
            "run_progress_timestamp_seconds",
            "When a round of a run was last done; before the first one, when a site last took a stand; or when it was resumed",
            {name: time.timestamp() for name, time in moved.items()},
        ),
    ]


def _of_rounds(rounds: Rounds) -> list[Metric]:
    lengths = [one.seconds for one in rounds.values()]
    buckets = [(f"{edge:g}", float(sum(one <= edge for one in lengths))) for edge in BUCKETS_S]
    took = HistogramMetricFamily(
        f"{PREFIX}_round_seconds",
        "Length of all rounds that are done",
        buckets=[*buckets, ("+Inf", float(len(lengths)))],
        sum_value=sum(lengths),
    )
    sizes = CounterMetricFamily(f"{PREFIX}_bytes", "Bytes of plans and updates, of rounds that are done", labels=["site", "direction"])
    for (site, direction), size in sorted(crossed(rounds).items()):
        sizes.add_metric([site, direction], size)
    without = CounterMetricFamily(
        f"{PREFIX}_refusals", "Rounds that a site was asked for and gave no update in, by kind of reason", labels=["site", "reason"]
    )
    for (site, reason), count in sorted(refusals(rounds).items()):
        without.add_metric([site, reason], count)
    return [took, sizes, without]


def _moved(
    told: Sequence[Run], standings: Mapping[str, Mapping[SiteId, Standing]], rounds: Rounds, resumed: Mapping[str, datetime]
) -> dict[str, datetime]:
    done: dict[str, datetime] = {}
    for (name, _), one in rounds.items():
        done[name] = max(done.get(name, one.time), one.time)
    stood = {name: max(one.since for one in known.values()) for name, known in standings.items() if known and name not in done}
    return {run.name: max([run.made, *(known[run.name] for known in (done, stood, resumed) if run.name in known)]) for run in told}


def _superlink(link: Link, keys: Mapping[SiteId, bytes]) -> Seen:
    try:
        found, refused = presence(link, keys), refused_calls(link)
    except httpx.HTTPError as error:
        return Seen(problem=f"does not answer: {error}")
    calls = CounterMetricFamily(f"{PREFIX}_calls_refused", "Calls that the SuperLink's guard refused, since it began", labels=["kind"])
    for kind, count in refused.items():
        calls.add_metric([kind], count)
    here = {site: one.here for site, one in found.items()}
    silent = {site: one.silent_s for site, one in found.items() if one.silent_s is not None}
    return Seen(
        metrics=[
            _each("site_in_contact", "1 for an enrolled site that is in contact, 0 for one that is not", here, of="site"),
            _each("site_silent_seconds", "Since the last heartbeat of an enrolled site, if it ever came", silent, of="site"),
            calls,
        ]
    )


def _certificates(home: Home) -> Seen:
    now = datetime.now(UTC)
    left = {"server": float(days_left(home.certificate.read_bytes(), now)), "authority": float(days_left(home.ca.read_bytes(), now))}
    metric = _each("certificate_days_left", "Whole days until a certificate expires, below 0 once it has", left, of="certificate")
    try:
        checked(home)
    except RainhillError as error:
        return Seen(metrics=[metric], problem=str(error))
    return Seen(metrics=[metric])


def _processes(home: Home, children: Sequence[Child]) -> Seen:
    again = CounterMetricFamily(f"{PREFIX}_process_restarts", "How often a process had to be started again", labels=["process"])
    for child in children:
        again.add_metric([child.name], max(child.starts - 1, 0))
    info = GaugeMetricFamily(f"{PREFIX}_info", "1, of this consortium and version", labels=["consortium", "version"])
    info.add_metric([home.config.name, rainhill.__version__], 1)
    return Seen(
        metrics=[
            again,
            _each("process_running", "1 for a process that runs", {one.name: one.running for one in children}, of="process"),
            info,
        ]
    )


def _each(name: str, words: str, values: Mapping[str, float], *, of: str = "run") -> Metric:
    metric = GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=[of])
    for label, value in values.items():
        metric.add_metric([label], value)
    return metric
