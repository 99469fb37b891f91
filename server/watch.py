"""A run as it goes on: what has changed between two looks, one change after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rainhill.messages import RoundRecord, SiteId
from rainhill.text import one_line
from server.runs import ACTIVE, Run, Runs, Standing

WIDE = 200
"""Characters of a line that somebody else wrote."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A run, as it was found at once."""

    run: Run
    standings: Mapping[SiteId, Standing]
    rounds: tuple[RoundRecord, ...]

    @property
    def is_over(self) -> bool:
        return self.run.state not in ACTIVE


@dataclass(frozen=True, kw_only=True)
class Change:
    run: str
    what: str
    """run, site or round."""
    words: str
    """One line."""
    detail: Mapping[str, object]
    """The same for a script."""


def look(runs: Runs, name: str) -> Look:
    """RefusedError where there is no such run."""
    # The state first: what is over by then has all of its rounds recorded.
    run = runs.run(name)
    return Look(run=run, standings=runs.standings(name), rounds=runs.rounds(name))


def changes(before: Look | None, now: Look) -> Iterator[Change]:
    """All of it where nothing was seen before. The run's own state comes last, as what the others lead to."""
    name = now.run.name
    for site, standing in now.standings.items():
        known = before.standings.get(site) if before else None
        if known is None or (known.state, known.reason) != (standing.state, standing.reason):
            yield _site(name, standing)
    seen = {record.round for record in before.rounds} if before else set()
    yield from (_round(now, record) for record in now.rounds if record.round not in seen)
    if before is None or (before.run.state, before.run.words) != (now.run.state, now.run.words):
        yield _state(now.run)


def _site(run: str, standing: Standing) -> Change:
    reason = f": {one_line(standing.reason, WIDE)}" if standing.reason else ""
    return Change(
        run=run,
        what="site",
        words=f"{standing.site} {standing.state}{reason}",
        detail={"site": standing.site, "state": standing.state, "reason": standing.reason, "since": standing.since.isoformat()},
    )


def _round(now: Look, record: RoundRecord) -> Change:
    without = "".join(f"; without {site}: {one_line(reason, WIDE)}" for site, reason in record.refused.items())
    counted = f"{len(record.answered)} of {len(record.asked)} sites, {record.seconds:.1f} s"
    return Change(
        run=now.run.name,
        what="round",
        words=f"round {record.round} of {now.run.round_count}: {counted}{without}",
        detail={
            "round": record.round,
            "of": now.run.round_count,
            "asked": list(record.asked),
            "answered": list(record.answered),
            "left_out": dict(record.refused),
            "seconds": round(record.seconds, 1),
        },
    )


def _state(run: Run) -> Change:
    words = f": {one_line(run.words, WIDE)}" if run.words else f" with adapter {run.result}" if run.result else ""
    return Change(
        run=run.name,
        what="run",
        words=f"{run.state}{words}",
        detail={"state": run.state, "words": run.words, "result": run.result},
    )
