"""A site's half of secure aggregation: it keeps its update, and answers five exchanges with what hides it.

State lies in the site's own folder between exchanges, written before an answer leaves. A site unmasks one list of survivors in a round,
however often the round is tried: the sums of two lists would differ by somebody's update.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.errors import RainhillError, RefusedError
from rainhill.files import write_whole
from rainhill.messages import Plan, Refusal, SecureMessage, SiteId, Update
from rainhill.recipe import SecureSection, Weights
from rainhill.secagg import Confirmations, Inbox, Layout, Roster, Terms, UnmaskRequest, agree, client, kept


@dataclass(frozen=True, kw_only=True)
class Masker:
    site: SiteId
    folder: Path
    """Holds secrets of the round in work; nobody but the site reads it."""
    identity: bytes = field(repr=False)
    """The site's long-term Ed25519 private key, 32 bytes."""
    pinned: Mapping[SiteId, bytes]
    """The Ed25519 public key by which the site knows each of the others."""
    section: SecureSection
    weights: Weights
    """How the recipe weighs updates: by patients, each site masks its own as many times as it told."""


def hide(masker: Masker, plan: Plan, update: Update) -> Update:
    """Keeps the update of this plan for the exchanges that follow; what may cross at once is it without tensors."""
    folder = _folder(masker, plan.run, plan.round)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(folder / "update", wire.answer_to_bytes(update), private=True)
    return replace(update, delta=Adapter({}))


def hidden(masker: Masker, run: str, number: int) -> Update:
    """What was kept of a round's update to be masked. RefusedError where nothing was."""
    folder = _folder(masker, run, number)
    if not (folder / "update").exists():
        raise RefusedError(f"{masker.site}: has no update for round {number} of run {run}")
    return _update(folder)


def respond(blob: bytes, masker: Masker) -> bytes:
    """The answer to one exchange, or the site's refusal."""
    message, version = wire.secure_from_bytes(blob), wire.version_of(blob)
    if isinstance(message, Refusal):
        raise RefusedError(f"{masker.site}: is sent a refusal, and is no coordinator")
    try:
        body = _EXCHANGES[message.phase](masker, message)
    except RainhillError as error:
        reason = str(error)
        return wire.answer_to_bytes(Refusal(run=message.run, round=message.round, site=masker.site, reason=reason), version=version)
    answer = SecureMessage(run=message.run, round=message.round, site=masker.site, phase=message.phase, body=body)
    return wire.secure_to_bytes(answer, version=version)


def _advertise(masker: Masker, message: SecureMessage) -> bytes:
    terms = Terms.from_bytes(message.body)
    _check_terms(masker, message, terms)
    folder = _folder(masker, message.run, message.round)
    state, entry = client.advertise(terms, masker.site, identity=masker.identity)
    write_whole(folder / "terms", terms.to_bytes(), private=True)
    _keep(folder, state)
    return entry.to_bytes(terms)


def _share(masker: Masker, message: SecureMessage) -> bytes:
    folder, terms = _opened(masker, message)
    state, sealed = client.share(kept.advertised(_state(folder), terms), Roster.from_bytes(message.body, terms), pinned=masker.pinned)
    _keep(folder, state)
    return sealed.to_bytes(terms)


def _mask(masker: Masker, message: SecureMessage) -> bytes:
    folder, terms = _opened(masker, message)
    update = _update(folder)
    state, masked = client.mask(kept.shared(_state(folder), terms), Inbox.from_bytes(message.body, terms), update.delta)
    _keep(folder, state)
    return masked.to_bytes(terms)


def _confirm(masker: Masker, message: SecureMessage) -> bytes:
    folder, terms = _opened(masker, message)
    request = UnmaskRequest.from_bytes(message.body, terms)
    before = folder / "unmasked"
    if before.exists() and (known := json.loads(before.read_text())) != list(request.survivors):
        raise RefusedError(
            f"{masker.site}: has unmasked the sum of {', '.join(known)} in round {message.round}, "
            f"and is asked for that of {', '.join(request.survivors)}: they would differ by somebody's update"
        )
    state, signed = client.confirm(kept.masked(_state(folder), terms), request, identity=masker.identity)
    _keep(folder, state)
    return signed.to_bytes(terms)


def _reveal(masker: Masker, message: SecureMessage) -> bytes:
    folder, terms = _opened(masker, message)
    state = kept.masked(_state(folder), terms)
    revealed = client.reveal(state, Confirmations.from_bytes(message.body, terms), pinned=masker.pinned)
    assert state.confirmed is not None
    write_whole(folder / "unmasked", json.dumps(list(state.confirmed.survivors)).encode(), private=True)
    (folder / "state").unlink()
    return revealed.to_bytes(terms)


MASKED = 2
"""The exchange in which the masked update leaves."""
_EXCHANGES: tuple[Callable[[Masker, SecureMessage], bytes], ...] = (_advertise, _share, _mask, _confirm, _reveal)


def _check_terms(masker: Masker, message: SecureMessage, terms: Terms) -> None:
    """Raises RefusedError unless they follow from the recipe and from this site's own update.

    Another site's weight is for that site to check: all sign the same terms, or they share no masks.
    """
    update = hidden(masker, message.run, message.round)
    shapes = {name: array.shape for name, array in update.delta.items()}
    equal, own = masker.weights == "equal", update.patients or 0
    expected = agree(
        run=message.run,
        round=message.round,
        weights=dict.fromkeys(terms.weights, 1) if equal else {**terms.weights, masker.site: own},
        layout=Layout(shapes=shapes),
        bound=masker.section.bound,
        dropouts=masker.section.dropouts,
    )
    if terms.digest != expected.digest:
        raise RefusedError(f"{masker.site}: terms of secure aggregation {terms.digest[:12]} are not {expected.digest[:12]} of the recipe")


def _opened(masker: Masker, message: SecureMessage) -> tuple[Path, Terms]:
    folder = _folder(masker, message.run, message.round)
    if not (folder / "state").exists():
        raise RefusedError(f"{masker.site}: exchange {message.phase} of round {message.round} does not follow from one before")
    return folder, Terms.from_bytes((folder / "terms").read_bytes())


def _update(folder: Path) -> Update:
    update = wire.answer_from_bytes((folder / "update").read_bytes())
    assert isinstance(update, Update)
    return update


def _state(folder: Path) -> bytes:
    return (folder / "state").read_bytes()


def _keep(folder: Path, state: client.Advertised | client.Shared | client.Masked) -> None:
    write_whole(folder / "state", kept.to_bytes(state), private=True)


def _folder(masker: Masker, run: str, number: int) -> Path:
    return masker.folder / hashlib.sha256(run.encode()).hexdigest()[:16] / f"round-{number:06d}"
