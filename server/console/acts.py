"""What an operator does on the console: begins, stops and resumes runs; and the log of what operators did."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from rainhill.console.frame import Act, Done, Shown, Visitor
from server.console import OPERATOR
from server.console.sources import PAGE, Sources, paged, skipped
from server.events import LONGEST


def acts_of(sources: Sources) -> list[Act]:
    """Each is kept with the name of the account."""
    return [
        Act(path=f"/runs/{{run}}/{name}", do=partial(do, sources), roles=(OPERATOR,), back="/runs/{run}")
        for name, do in (("begin", begin), ("stop", stop), ("resume", resume))
    ]


def begin(sources: Sources, visitor: Visitor, form: Mapping[str, str]) -> Done:
    sources.runs.begin(form["run"], by=visitor.name)
    return Done(to=f"/runs/{form['run']}", words=f"{form['run']} begins with the sites that have approved it.")


def stop(sources: Sources, visitor: Visitor, form: Mapping[str, str]) -> Done:
    sources.runs.stop(form["run"], reason=form.get("reason", "").strip()[: LONGEST + 1], by=visitor.name)
    return Done(to=f"/runs/{form['run']}", words=f"{form['run']} is stopped: no further round of it begins.")


def resume(sources: Sources, visitor: Visitor, form: Mapping[str, str]) -> Done:
    sources.runs.resume(form["run"], by=visitor.name, now=datetime.now(UTC))
    state = sources.runs.run(form["run"]).state
    return Done(
        to=f"/runs/{form['run']}", words=f"{form['run']} {'goes on after its last round' if state == 'running' else 'is offered again'}."
    )


def log(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    skip = skipped(asked)
    events, pager = paged(sources.listing.events(count=PAGE + 1, skip=skip), skip, "/log")
    return Shown(template="log.html.j2", title="What operators did", about={"events": events, "pager": pager})
