"""What a site was asked to take part in, what people there decided, and so what it may be asked now."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import strategies
from client import policy, tasks
from client.chain import Event
from client.data import cohort
from client.home import SiteHome
from client.journal import Approved, Decision, Declined, Journal, Left, Offered, decision, envelope, rounds_left
from client.privacy.ledger import Ledger
from client.secure import Masker
from rainhill.adapter import Adapter
from rainhill.errors import CredentialError, RainhillError, RefusedError
from rainhill.files import alone, write_whole
from rainhill.offer import Offer, opened_offer
from rainhill.standing import State
from rainhill.text import did_you_mean

log = logging.getLogger(__name__)

KINDS = 8
"""Rounds that are looked at to find out what a run sends: rules take turns of two."""
SETTLED = timedelta(days=1)
"""For so long at least an offer that nobody has decided on counts as waiting."""
DAYS = 30
"""How long an approval holds where nobody says."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """How the site stands to a run, and why."""

    state: State
    reason: str = ""
    """Without identifiers: the consortium is told."""
    approved: Approved | None = None


@dataclass(frozen=True)
class Offers:
    home: SiteHome
    journal: Journal

    @classmethod
    def open(cls, home: SiteHome) -> "Offers":
        return cls(home, Journal.open(home.state, site=home.config.name))

    def take(self, sealed: bytes) -> Offer:
        """Keeps an offer, once. CredentialError where it is not the consortium's, RefusedError for another one of a known run."""
        offer = opened(self.home, sealed)
        with self._alone():
            known = self._known(offer.run)
            if known is not None and known != offer.sha256:
                raise RefusedError(f"run {offer.run}: was offered as {known[:12]}, and is offered as {offer.sha256[:12]} now")
            if self.home.config.name not in offer.sites:
                raise RefusedError(f"run {offer.run}: asks {_some(sorted(offer.sites))}, and this is {self.home.config.name}")
            if known is None:
                self._refuse_too_many(offer, datetime.now(UTC))
                self.journal.append(_offered(offer))
            if offer.run not in self.names():
                self.home.offers.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(self._file(offer.run), sealed, private=True)
        return offer

    def sealed(self, run: str) -> bytes:
        """RefusedError where the site was never offered it."""
        if run not in self.names():
            raise RefusedError(f"run {run}: was never offered to {self.home.config.name}{did_you_mean(run, self.names())}")
        return self._file(run).read_bytes()

    def offer(self, run: str) -> Offer:
        return opened(self.home, self.sealed(run))

    def names(self) -> list[str]:
        """Of the runs that the consortium has offered which the site belongs to now."""
        return sorted(path.stem for path in self.home.offers.glob("*.offer") if self._opens(path))

    def decided(self, offer: Offer, now: datetime, *, number: int = 0, plan: str = "") -> Decided:
        """How the site stands to the run's round `number`, 0 before the first, or to the plan of that sha256. Only looks.

        What the site's own file does not allow is refused, whatever a person has said; then what a person has said. What the site's data
        do not allow the consortium is told of once a person has approved that they are asked: else offers could find out what is in them.
        """
        beyond = forbidden(self.home, offer)
        if beyond:
            return Decided(state="refused", reason="; ".join(beyond))
        events = self.journal.events()
        said = _said(events, offer) or _repeat(events, offer, now)
        if isinstance(said, Declined):
            return Decided(state="refused", reason=said.reason or "the site takes no part")
        if said is None:
            if now > offer.until:
                return Decided(state="refused", reason=f"nobody at the site approved it by {offer.until:%Y-%m-%d %H:%M} UTC")
            return Decided(state="pending", reason="waits for somebody at the site to approve it")
        if now > said.until:
            return Decided(state="pending", reason=f"its approval ended on {said.until:%Y-%m-%d %H:%M} UTC", approved=said)
        # What left before, and was lost on its way, may leave again: another plan of the same round is another look at the patients.
        lefts = [event for event in events if isinstance(event, Left) and event.run == offer.run]
        again = any(event.plan == plan if plan else event.round == number for event in lefts)
        if not again and not rounds_left((*events, said), offer.run):
            return Decided(state="pending", reason=f"was approved for {said.rounds} rounds, which are done", approved=said)
        lacks = lacking(self.home, offer)
        if lacks:
            return Decided(state="refused", reason="; ".join(lacks), approved=said)
        return Decided(state="approved", approved=said)

    def settled(self, offer: Offer, now: datetime, *, number: int = 0, plan: str = "") -> Decided:
        """As `decided`; where that is by an approval that allowed repeats, one of them is used up by it, for good."""
        with self._alone():
            decided = self.decided(offer, now, number=number, plan=plan)
            said = decided.approved
            if decided.state == "approved" and said is not None and said.envelope and _said(self.journal.events(), offer) is None:
                self.journal.append(said)
        return decided

    def approve(self, run: str, *, by: str, rounds: int | None = None, days: int = DAYS, repeats: int = 0, shown: str = "") -> Approved:
        """By a person, for all rounds where no number is given. RefusedError for what the site's own file does not allow.

        `shown` is the sha256 of the offer that the person was shown: RefusedError where it is another now.
        """
        offer, now = self._shown(run, shown), datetime.now(UTC)
        count = offer.recipe.rounds.count
        if rounds is not None and rounds > count:
            raise RefusedError(f"run {run}: has {count} rounds, and {rounds} would be approved")
        if offer.recipe.privacy is not None:
            # What it would cost has to be known: one that cannot be read is said here, and not in the first round.
            Ledger.existing(self.home.state, site=self.home.config.name)
        beyond = refusals(self.home, offer)
        if beyond:
            raise RefusedError(f"run {run}: the site's own file does not allow it: {'; '.join(beyond)}")
        if now > offer.until and _said(self.journal.events(), offer) is None:
            raise RefusedError(f"run {run}: could be approved until {offer.until:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC")
        approved = Approved(
            run=run,
            recipe=offer.recipe.sha256,
            offer=offer.sha256,
            by=by,
            rounds=rounds or count,
            until=now + timedelta(days=days),
            repeats=repeats,
            envelope=False,
        )
        self.journal.append(approved)
        return approved

    def decline(self, run: str, *, by: str, reason: str, shown: str = "") -> Declined:
        """By a person; it takes an approval back too. `shown` as of an approval."""
        offer = self._shown(run, shown)
        declined = Declined(run=run, recipe=offer.recipe.sha256, offer=offer.sha256, by=by, reason=reason)
        self.journal.append(declined)
        return declined

    def _shown(self, run: str, shown: str) -> Offer:
        offer = self.offer(run)
        if shown and shown != offer.sha256:
            raise RefusedError(f"run {run}: what was shown is offer {shown[:12]}, and what is here now is {offer.sha256[:12]}: look again")
        return offer

    def _alone(self) -> AbstractContextManager[None]:
        # A node works on several messages at once, and two could each find the one repeat that is left.
        return alone(self.home.state / "offers.lock")

    def _refuse_too_many(self, offer: Offer, now: datetime) -> None:
        """Of those that nobody has decided on. One past its time counts on for a day: else offers of a minute each could fill the disk."""
        entries = [(entry.time, self.journal.event(entry)) for entry in self.journal.entries()]
        decided = {event.run for _, event in entries if isinstance(event, Approved | Declined)}
        waiting = [
            event.run
            for time, event in entries
            if isinstance(event, Offered) and event.run not in decided and now <= max(event.until, datetime.fromisoformat(time) + SETTLED)
        ]
        most = self.home.config.policy.max_pending
        if len(waiting) >= most:
            raise RefusedError(
                f"run {offer.run}: {len(waiting)} offers wait for a decision at {self.home.config.name}, whose file keeps at most {most}"
            )

    def _known(self, run: str) -> str | None:
        """sha256 of the offer by which the site knows the run. The journal has the word: a file can be put back to what it was."""
        return next((event.offer for event in self.journal.events() if isinstance(event, Offered) and event.run == run), None)

    def _opens(self, path: Path) -> bool:
        try:
            opened(self.home, path.read_bytes())
        except (CredentialError, OSError):
            # Of a consortium that the site has left, for instance.
            return False
        return True

    def _file(self, run: str) -> Path:
        return self.home.offers / f"{run}.offer"


def room(home: SiteHome, journal: Journal) -> int:
    """Bytes of the largest message that a run which was offered here can want; 0 where none was."""
    offers = Offers(home, journal)
    return max((offers.offer(name).room for name in offers.names()), default=0)


def _offered(offer: Offer) -> Offered:
    privacy = offer.recipe.privacy
    return Offered(
        run=offer.run,
        recipe=offer.recipe.sha256,
        offer=offer.sha256,
        consortium=offer.consortium,
        by=offer.by,
        adapter=offer.adapter,
        rounds=offer.recipe.rounds.count,
        epsilon=privacy.epsilon if privacy else None,
        until=offer.until,
    )


def _said(events: tuple[Event, ...], offer: Offer) -> Decision | None:
    """The newest word on this very offer, and on no other of the same run's name."""
    said = decision(events, offer.run)
    return said if said is not None and (said.offer, said.recipe) == (offer.sha256, offer.recipe.sha256) else None


def _repeat(events: tuple[Event, ...], offer: Offer, now: datetime) -> Approved | None:
    """What somebody approved beforehand: another run of the very same recipe. Not yet in the journal."""
    before = envelope(events, offer.recipe.sha256, now) if now <= offer.until and decision(events, offer.run) is None else None
    return before and before.model_copy(update={"run": offer.run, "offer": offer.sha256, "repeats": 0, "envelope": True})


def _some(names: Sequence[str], shown: int = 10) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def opened(home: SiteHome, sealed: bytes) -> Offer:
    """CredentialError where it is not of the consortium that the site belongs to."""
    bundle = home.bundle()
    return opened_offer(sealed, consortium=bundle.consortium, public=bytes.fromhex(bundle.consortium_key))


def refusals(home: SiteHome, offer: Offer) -> list[str]:
    """Why no person may approve this offer, told as the consortium may be told it."""
    return forbidden(home, offer) or lacking(home, offer)


def forbidden(home: SiteHome, offer: Offer) -> list[str]:
    """What the site's file forbids, and what its software has not got. Not a look is taken at its data."""
    recipe, found = offer.recipe, []
    looks = (partial(strategies.from_recipe, recipe), partial(tasks.from_recipe, recipe), partial(leaving, home, offer))
    try:
        for look in looks:
            look()
    except RainhillError as error:
        # Of the offer alone.
        found.append(str(error))
    try:
        home.base_of(recipe.base.sha256)
    except RefusedError as error:
        found.append(str(error))
    except RainhillError as error:
        # Its words name files of the site's.
        log.warning("run %s: %s", offer.run, error)
        found.append(f"base model {recipe.base.sha256[:12]} cannot be read; the site's own log says why")
    if find_spec(f"client.models.{recipe.base.model}") is None:
        found.append(f"model {recipe.base.model} is not in the Rainhill that the site has installed")
    return [*found, *_strangers(home, offer), *policy.refusals(recipe, home.config, patients=None)]


def _strangers(home: SiteHome, offer: Offer) -> list[str]:
    """Where updates are masked, sites whose keys are not those of the bundle: with enough of them, a coordinator could unmask by itself."""
    if offer.recipe.secure_aggregation is None:
        return []
    known = home.bundle().peers
    others = sorted(site for site, key in offer.sites.items() if known.get(site) != key)
    if not others:
        return []
    return [f"masks updates with {_some(others)}, whose keys are not those of the site's bundle: join again with a new one"]


def lacking(home: SiteHome, offer: Offer) -> list[str]:
    """What the site's data do not allow."""
    try:
        return policy.too_few(home.config.policy, len(training_patients(home, offer)))
    except RainhillError as error:
        # Its words may tell of patients.
        log.warning("run %s: %s", offer.run, error)
        return ["the site has no data for it; the site's own log says what is missing"]


def leaving(home: SiteHome, offer: Offer) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Names and shapes of what would leave in a round, for each kind of round that there is: some rules send factors in turn.

    RefusedError where no such update can be made of the offer's tensors.
    """
    return _leaving(offer.canonical(), home.config.name)


@lru_cache(maxsize=32)
def _leaving(canonical: bytes, site: str) -> tuple[dict[str, tuple[int, ...]], ...]:
    offer = Offer.model_validate_json(canonical)
    try:
        strategy = strategies.from_recipe(offer.recipe)
        # Only shapes are asked for, but a rule may decompose what it is given.
        rng = np.random.default_rng(0)
        start = Adapter({name: rng.standard_normal(shape, dtype=np.float32) for name, shape in offer.tensors.items()})
        state = strategy.init(start)
        sent = strategy.down(start, state, site)
        found: list[dict[str, tuple[int, ...]]] = []
        for number in range(min(offer.recipe.rounds.count, KINDS)):
            rule = strategy.local(sent, replace(state, round=number), site)
            tensors = strategy.uplink(sent, rule)
            if rule.variate:
                tensors |= {f"gradient of {name}": array.shape for name, array in sent.items() if rule.sends(name)}
            if tensors not in found:
                found.append(tensors)
        return tuple(found)
    except (RainhillError, ValueError, LookupError, ArithmeticError) as error:
        raise RefusedError(f"recipe {offer.recipe.name} cannot begin from the tensors that are offered: {error}") from error


def training_patients(home: SiteHome, offer: Offer) -> tuple[str, ...]:
    """Their pseudonyms."""
    task = tasks.from_section(offer.recipe.task)
    return cohort.training_patients(home.config, findings=task.findings, base=home.file.parent, key=home.pseudonym_key())


def masker_of(home: SiteHome, offer: Offer) -> Masker | None:
    """What hides the updates of a run whose recipe asks for secure aggregation; None of any other."""
    section = offer.recipe.secure_aggregation
    if section is None:
        return None
    return Masker(
        site=home.config.name,
        folder=home.run(offer.run) / "secure",
        identity=home.identity().signing,
        pinned={site: bytes.fromhex(key) for site, key in offer.sites.items()},
        section=section,
        weights=offer.recipe.strategy.weights,
    )
