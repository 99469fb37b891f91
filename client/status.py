"""What a site's daemon writes of its contact, and what is made of it for whoever asks."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from client.flower.line import Contact
from client.home import SiteHome
from rainhill import signed
from rainhill.errors import CredentialError, RefusedError
from rainhill.files import held, write_whole

log = logging.getLogger(__name__)

EVERY_S = 2.0
REMIND_S = 10.0
"""A time of contact that is older is written anew, though nothing else has changed."""


def keep_status(home: SiteHome, contact: Contact, stop: threading.Event) -> None:
    """Writes it where it changed, until `stop` is set; then nothing is left of it."""
    told, at = "", 0.0
    while not stop.wait(EVERY_S):
        connected = contact.node is not None and not contact.reason
        words, last = f"{connected} {contact.reason}", contact.last or 0.0
        if words != told or last - at > REMIND_S:
            document = {"connected": connected, "last_contact": contact.last, "reason": contact.reason}
            try:
                write_whole(home.status, json.dumps(document).encode(), private=True)
                told, at = words, last
            except OSError as error:
                log.warning("what is known of the contact cannot be written: %s", error)
    home.status.unlink(missing_ok=True)


def status_of(home: SiteHome) -> dict[str, Any]:
    """Also of a site that has no keys yet, or no consortium: those are None."""
    running = is_running(home)
    known = _known(home) if running else {}
    last = known.get("last_contact")
    return {
        "site": home.config.name,
        "state": str(home.state),
        "fingerprint": _or_none(lambda: signed.fingerprint(home.identity().signing_public)),
        "consortium": _or_none(lambda: home.bundle().title or home.bundle().consortium),
        "coordinator": _or_none(lambda: f"{home.bundle().coordinator.host}:{home.bundle().coordinator.port}"),
        "daemon": "running" if running else "not running",
        "connected": bool(known.get("connected")),
        "last_contact": datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds") if last else None,
        "reason": known.get("reason") or None,
    }


def _or_none(look: Callable[[], str]) -> str | None:
    try:
        return look()
    except CredentialError:
        return None


def is_running(home: SiteHome) -> bool:
    if not home.lock.exists():
        return False
    try:
        with held(home.lock, "the daemon"):
            return False
    except RefusedError:
        return True


def _known(home: SiteHome) -> dict[str, Any]:
    try:
        return dict(json.loads(home.status.read_bytes()))
    except FileNotFoundError:
        return {}
