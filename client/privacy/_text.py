"""A statement and a what-if as text, for a terminal."""

from collections.abc import Iterator, Sequence

from client.privacy.statement import Claim, Range, RunSpent, Statement
from client.privacy.what_if import Cost, WhatIf

BAR = 24
RDP = "           by RDP: a looser bound by another theory, to hold the claim against"
RUN = "{:<20} {:<10} {:<8} {:>6} {:>12} {:>7} {:>8} {:>17}"


def statement_text(statement: Statement) -> str:
    return "\n".join(_statement(statement)) + "\n"


def what_if_text(found: WhatIf) -> str:
    return "\n".join(_what_if(found)) + "\n"


def _statement(statement: Statement) -> Iterator[str]:
    everything = statement.everything
    relation = f"per {everything.unit} ({everything.neighbours}, delta {statement.delta:g})"
    yield f"{statement.site}: what its patients have spent. Epsilon here is {relation}."
    limit = (
        f"budget     epsilon {statement.budget:g} {relation}, over all runs" if statement.budget else "budget     none in the site's file"
    )
    yield limit
    if statement.year_budget:
        yield f"           epsilon {statement.year_budget:g} {relation}, over any 365 days"
    if not statement.entries:
        yield "ledger     none yet: nothing was charged"
        return
    yield f"ledger     {statement.entries} entries that hold, since {statement.since[:10]}"
    yield f"most spent {_of(statement.most_spent, statement.budget)}"
    yield f"this year  {_of(statement.most_spent_in_year, statement.year_budget)}, in the last 365 days, by who spent most in them"
    yield f"everything {_of(everything, statement.budget)}, had one patient taken part in all of it"
    yield RDP
    if statement.runs:
        yield ""
        yield RUN.format("spent by run", "recipe", "what", "rounds", "steps", "sigma", "rate", "epsilon")
        yield from map(_run, statement.runs)
        yield f"epsilon {relation}; numbers are charged to other patients than updates"
        yield ""
        yield from _patients(statement, relation)


def _of(claim: Claim, limit: float | None) -> str:
    return f"{claim}" + (f", of {limit:g}" if limit else "")


def _run(run: RunSpent) -> str:
    steps = f"{run.steps}" + (f" of {run.steps_agreed}" if run.steps_agreed else "")
    epsilon = f"{run.claim.epsilon:.3f}" + (f" of {run.epsilon_agreed:g}" if run.epsilon_agreed else "")
    name = run.run if len(run.run) <= 20 else f"{run.run[:19]}…"
    return RUN.format(
        name, run.recipe[:8], run.what, run.rounds, steps, _numbers(run.noise_multipliers), _numbers(run.sample_rates), epsilon
    )


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:.4g}" + ("…" if len(values) > 1 else "")


def _patients(statement: Statement, relation: str) -> Iterator[str]:
    yield f"{statement.patients} patients were charged, by what each has spent; epsilon {relation}"
    most = max((one.patients for one in statement.ranges), default=0) or 1
    yield from (_range(one, most) for one in statement.ranges)
    if statement.at_budget is not None:
        yield f"{statement.at_budget} of them are at their budget: it does not allow one more round like the last"


def _range(one: Range, most: int) -> str:
    bar = "█" * (round(BAR * one.patients / most) or bool(one.patients))
    return f"  above {one.above:>7.3g} to {one.upto:>7.3g}  {bar:<{BAR}} {one.patients}"


def _what_if(found: WhatIf) -> Iterator[str]:
    yield f"{found.recipe} ({found.sha256[:8]}), with {found.patients} training patients"
    if found.cost is not None:
        yield from _cost(found.cost)
    yield from (f"note       {note}" for note in found.notes)
    if found.refused:
        yield f"refused    {found.refused}"


def _cost(cost: Cost) -> Iterator[str]:
    steps = f"{cost.steps} steps in {cost.rounds} rounds"
    yield f"terms      noise multiplier {cost.noise_multiplier:.4g}, sample rate {cost.sample_rate:.4g}, {steps}"
    yield f"the run    {cost.run}"
    yield f"most spent {cost.before}, before"
    yield f"           {cost.after}, after" + (f", of {cost.budget:g}: {cost.remaining:.3f} remain" if cost.budget else "")
    if cost.year is not None:
        year = cost.year
        yield f"this year  {year.before}, before, by who spent most in the last 365 days"
        yield f"           {year.after}, after, of {year.budget:g}: {year.remaining:.3f} remain"
    yield RDP
    if cost.unable:
        yield f"{cost.unable} patients charged before cannot afford all of it, and would be left out before its end"
