"""What a site's daemon tells Prometheus: its line, its books and its machine. Of patients only, where the site's file says so, epsilon."""

import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from cryptography import x509
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

import rainhill
from client.flower.line import Contact
from client.home import SiteHome
from client.journal import Journal, Left, Said
from client.privacy import budget
from client.privacy.ledger import Ledger
from client.privacy.statement import Snapshot
from client.reader import Reader
from client.trainer import Trainer
from client.waiting import Waits, held_since
from rainhill.config import PrivacyConfig
from rainhill.exposed import Exposed, Part, Seen, gauge

PREFIX = "rainhill_site"
NEWEST = 50
"""Runs that are told of one by one: labels must not grow for ever."""
STALE_S = 300.0
"""Of books: they are read whole, and an epsilon takes its time."""
DAY_S = 24 * 3600.0


def site_metrics(home: SiteHome, contact: Contact, trainer: Trainer) -> Exposed:
    journal, ledger = _JournalPart(home), _LedgerPart(home)
    parts = [
        Part("line", lambda: _line(home, contact)),
        Part("machine", lambda: _machine(home, trainer)),
        Part("journal", journal.seen, stale_s=STALE_S),
        Part("ledger", ledger.seen, stale_s=STALE_S),
    ]
    return Exposed(PREFIX, parts)


def _line(home: SiteHome, contact: Contact) -> Seen:
    here, now = contact.node is not None and not contact.reason, time.time()
    authority = x509.load_pem_x509_certificates(home.ca.read_bytes())[0].not_valid_after_utc.timestamp()
    ends = {"authority": authority} | ({"coordinator": contact.certificate_until} if contact.certificate_until else {})
    failures = CounterMetricFamily(f"{PREFIX}_line_failures", "Calls to the coordinator that failed, since the daemon began")
    failures.add_metric([], contact.failures)
    metrics: list[Metric] = [
        *_counter("messages_dropped", "Messages that could not be taken, or were too large, since the daemon began", contact.dropped),
        *_gauge("in_contact", "1 where the coordinator answers this site's daemon, 0 where it does not", here),
        *_gauge("clock_ahead_seconds", "Of this machine's clock before the coordinator's, to a second", contact.ahead_s),
        *_gauge("silent_seconds", "Since the coordinator last answered", max(now - contact.last, 0.0) if contact.last else None),
        failures,
        _labelled(
            "certificate_days_left",
            "Whole days until the coordinator's certificate, as last shown, and its authority's expire",
            "certificate",
            {name: (until - now) // DAY_S for name, until in ends.items()},
        ),
    ]
    return Seen(metrics=metrics, problem="" if here else contact.reason or "is not in contact yet")


def _machine(home: SiteHome, trainer: Trainer) -> Seen:
    trainer.look()
    starts = CounterMetricFamily(f"{PREFIX}_training_starts", "Starts of the training process, since the daemon began")
    starts.add_metric([], trainer.starts)
    info = GaugeMetricFamily(f"{PREFIX}_info", "1, of this site and version", labels=["site", "version"])
    info.add_metric([home.config.name, rainhill.__version__], 1)
    return Seen(
        metrics=[
            info,
            starts,
            *_gauge("training_running", "1 while there is a training process", trainer.pid is not None),
            *_gauge("last_fit_seconds", "That the training process last took for an answer, with what it had to load", trainer.fit_s),
            *_gauge("training_peak_bytes", "Most memory that a training process held", trainer.peak_bytes),
            *_gauge("disk_free_bytes", "Free where the site's folder is", shutil.disk_usage(home.state).free),
            *_gauge("paused", "1 while the site has paused", home.paused.exists()),
        ]
    )


class _JournalPart:
    def __init__(self, home: SiteHome) -> None:
        self._home, self._reader, self._waits = home, Reader(home, Journal), Waits(home)

    def seen(self) -> Seen:
        found, now = self._reader.read(), datetime.now(UTC)
        left = [event for event in found.parsed if isinstance(event, Left)]
        rounds = CounterMetricFamily(f"{PREFIX}_rounds_answered", "Rounds of a run that an update left for", labels=["run"])
        for run, answered in _rounds(left).items():
            rounds.add_metric([run], len(answered))
        waiting, held = self._waits.since(found, now), held_since(self._home, found)
        said = sum(isinstance(event, Said) for event in found.parsed)
        return Seen(
            metrics=[
                rounds,
                *_counter("updates_left", "Updates that left the site", len(left)),
                *_counter("bytes_left", "Bytes of the updates that left the site", sum(event.size for event in left)),
                *_counter("refusals_said", "Refusals that left in place of an update", said),
                *_gauge("approvals_waiting", "Runs that wait for somebody at the site to decide", len(waiting)),
                *_gauge(
                    "approval_waiting_seconds", "That the run waits which has waited longest; 0 where none does", _longest(waiting, now)
                ),
                *_gauge("held_updates", "Updates that wait for somebody at the site to release them", len(held)),
                *_gauge("held_seconds", "That the update waits which has waited longest; 0 where none does", _longest(held, now)),
                *_gauge("journal_entries", "Entries of the site's journal, which hold", len(found.entries)),
            ]
        )


class _LedgerPart:
    def __init__(self, home: SiteHome) -> None:
        self._home, self._reader = home, Reader(home, Ledger)
        self._spent: tuple[Snapshot, float] | None = None

    def seen(self) -> Seen:
        found = self._reader.read()
        metrics = _gauge("ledger_entries", "Entries of the privacy ledger, which hold", len(found.entries))
        if self._home.config.metrics.epsilon:
            spent, privacy = self._most_spent(found), self._home.config.privacy
            left = max(privacy.epsilon - spent, 0.0) if privacy else None
            metrics += _gauge("epsilon_spent", "Of the patient who has spent most, over all runs", spent)
            metrics += _gauge("epsilon_left", "Of the patient who has spent most, within what the site's file allows", left)
        return Seen(metrics=metrics)

    def _most_spent(self, found: Snapshot) -> float:
        if self._spent is None or self._spent[0] is not found:
            delta = (self._home.config.privacy or PrivacyConfig()).delta
            self._spent = found, budget.spent(budget.most_spent(budget.histories(found), delta), delta)
        return self._spent[1]


def _rounds(left: Iterable[Left]) -> dict[str, set[int]]:
    """Of the newest runs; a round whose update left twice counts once."""
    found: dict[str, set[int]] = {}
    for event in left:
        found.setdefault(event.run, set()).add(event.round)
    return dict(list(found.items())[-NEWEST:])


def _longest(since: Iterable[datetime], now: datetime) -> float:
    return max(((now - one).total_seconds() for one in since), default=0.0)


def _gauge(name: str, words: str, value: float | None) -> list[Metric]:
    return gauge(f"{PREFIX}_{name}", words, value)


def _counter(name: str, words: str, value: float) -> list[Metric]:
    return [CounterMetricFamily(f"{PREFIX}_{name}", words, value=value)]


def _labelled(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    metric = GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=[label])
    for key, value in values.items():
        metric.add_metric([key], value)
    return metric
