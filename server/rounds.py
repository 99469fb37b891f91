"""The round loop: plans out, updates back, the next adapter, a checkpoint. The same for live sites and simulated ones."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.errors import MergeError, ProtocolError, QuorumError, RefusedError
from rainhill.messages import Plan, Refusal, RoundRecord, SiteId, Update
from rainhill.recipe import Recipe
from rainhill.secagg import Layout, agree
from server import checkpoint
from server.arrived import Arrived, arriving
from server.checkpoint import Checkpoint
from server.secure import Secure, Talk, aggregate
from strategies import Strategy

log = logging.getLogger(__name__)

Collect = Callable[[Mapping[SiteId, Plan]], Iterable[Update | Refusal]]
"""The one seam between live and simulated: every site's plan in, answers back in any order. A site may give none."""


def run_rounds(
    recipe: Recipe,
    strategy: Strategy,
    adapter: Adapter,
    *,
    run: str,
    sites: Sequence[SiteId],
    collect: Collect,
    folder: Path,
    on_round: Callable[[RoundRecord], None] | None = None,
    secure: Secure | None = None,
) -> Checkpoint:
    """Runs the rounds that are still to do, and leaves a checkpoint of each in `folder`.

    `adapter` is where a fresh run starts; a run with checkpoints goes on from the last one.
    Raises QuorumError when a round had too few valid updates, MergeError when their merge overflowed, CheckpointError where the disk takes
    no more: what was finished before is kept.
    """
    if recipe.secure_aggregation is not None and secure is None:
        raise RefusedError(f"recipe {recipe.name} asks for secure aggregation, and there is no way to exchange its messages")
    latest = checkpoint.latest(folder, recipe=recipe.sha256, run=run)
    done = latest or Checkpoint(recipe=recipe.sha256, run=run, adapter=adapter, state=strategy.init(adapter), history=())
    while done.state.round < recipe.rounds.count:
        with arriving(folder) as arrived:
            done = _one_round(done, recipe=recipe, strategy=strategy, sites=sites, collect=collect, secure=secure, arrived=arrived)
        checkpoint.save(folder, done)
        if on_round is not None:
            on_round(done.history[-1])
    return done


def _one_round(
    done: Checkpoint,
    *,
    recipe: Recipe,
    strategy: Strategy,
    sites: Sequence[SiteId],
    collect: Collect,
    secure: Secure | None,
    arrived: Arrived,
) -> Checkpoint:
    started = time.monotonic()
    number = done.state.round + 1
    plans = {}
    for site in sites:
        sent = strategy.down(done.adapter, done.state, site)
        plans[site] = Plan(
            run=done.run,
            recipe=recipe.sha256,
            round=number,
            site=site,
            adapter=sent,
            rule=strategy.local(sent, done.state, site),
            choices=strategy.choices(done.adapter, done.state, site),
        )
    updates, refused = _gather(plans, collect, strategy, recipe, arrived)
    quorum = max(recipe.rounds.quorum, strategy.min_sites())
    if len(updates) < quorum:
        reasons = "; ".join(f"{site}: {reason}" for site, reason in refused.items())
        raise QuorumError(
            f"round {number}: {len(updates)} of {len(sites)} sites gave an update, the quorum is {quorum}"
            + (f" ({reasons})" if reasons else "")
        )
    talk = _talk(plans, updates, recipe, strategy, secure) if recipe.secure_aggregation and secure else None
    merged: Sequence[Update] = updates
    if talk is not None:
        summed = aggregate(talk)
        refused |= {site: talk.lost.get(site, "is not in the sum") for site in talk.terms.sites if site not in summed.survivors}
        updates = [update for update in updates if update.site in summed.survivors]
        # One update stands for all: under a linear rule their weighted mean is all it takes.
        merged = [replace(updates[0], delta=summed.mean)]
    adapter, state = strategy.step(done.adapter, merged, done.state)
    broken = [name for name, array in (*adapter.items(), *state.arrays.items()) if not np.isfinite(array).all()]
    if broken:
        raise MergeError(f"round {number}: {broken[0]} is not finite after the merge; round {number - 1} is intact")
    record = RoundRecord(
        round=number,
        asked=tuple(sites),
        answered=tuple(update.site for update in updates),
        refused=refused,
        down_bytes={site: len(wire.plan_to_bytes(plan)) + (talk.down_bytes.get(site, 0) if talk else 0) for site, plan in plans.items()},
        up_bytes={update.site: len(wire.answer_to_bytes(update)) + (talk.up_bytes[update.site] if talk else 0) for update in updates},
        losses={update.site: update.loss for update in updates if update.loss is not None},
        evaluations={update.site: dict(update.evaluation.metrics) for update in updates if update.evaluation},
        seconds=time.monotonic() - started,
        log=dict(state.log),
        epsilons={update.site: update.epsilon for update in updates if update.epsilon is not None},
    )
    log.info("round %d: %d of %d sites", number, len(updates), len(sites))
    return Checkpoint(recipe=done.recipe, run=done.run, adapter=adapter, state=state, history=(*done.history, record))


def _talk(plans: Mapping[SiteId, Plan], updates: Sequence[Update], recipe: Recipe, strategy: Strategy, secure: Secure) -> Talk:
    """The exchanges by which the sum of these updates, of which each site has kept its own, is learned."""
    section, plan = recipe.secure_aggregation, plans[updates[0].site]
    assert section is not None
    terms = agree(
        run=plan.run,
        round=plan.round,
        weights={update.site: _weight(update, strategy) for update in updates},
        layout=Layout(shapes=strategy.uplink(plan.adapter, plan.rule)),
        bound=section.bound,
        dropouts=section.dropouts,
    )
    return Talk(terms=terms, secure=secure)


def _weight(update: Update, strategy: Strategy) -> int:
    """How many times an update counts in the sum. `Strategy.shares` has refused one without a number where it needs it."""
    return 1 if strategy.weights == "equal" else update.patients or 0


def _check_privacy(update: Update, recipe: Recipe) -> None:
    """A run that promises privacy takes no update that was made without, or with less."""
    asked, got = recipe.privacy, update.epsilon
    if asked is not None and (got is None or got > asked.epsilon):
        raise RefusedError(f"{update.site}: its update has epsilon {'without bound' if got is None else got}, asked was {asked.epsilon}")


def _gather(
    plans: Mapping[SiteId, Plan], collect: Collect, strategy: Strategy, recipe: Recipe, arrived: Arrived
) -> tuple[list[Update], dict[SiteId, str]]:
    """Valid updates in the order of their sites, and why each other site has none."""
    updates: dict[SiteId, Update] = {}
    refused: dict[SiteId, str] = {}
    for answer in collect(plans):
        site = answer.site
        if site not in plans:
            log.warning("an answer from %r, who was not asked, is left out", site)
        elif site in updates or site in refused:
            log.warning("a second answer from %s in one round is left out", site)
        elif isinstance(answer, Refusal):
            refused[site] = answer.reason
        else:
            try:
                # Under secure aggregation no tensor comes with the answer.
                expected = {} if recipe.secure_aggregation else strategy.uplink(plans[site].adapter, plans[site].rule)
                wire.check_answer(answer, plans[site], expected)
                _check_privacy(answer, recipe)
                strategy.shares([answer])
                updates[site] = arrived.kept(answer)
            except (ProtocolError, RefusedError) as error:
                refused[site] = str(error)
    refused |= {site: "no answer" for site in plans if site not in updates and site not in refused}
    for site, reason in refused.items():
        log.warning("%s is left out of this round: %s", site, reason)
    # In the order of the sites, so that sums do not depend on who was fastest.
    return [updates[site] for site in sorted(updates)], refused
