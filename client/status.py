"""What a site's daemon writes of its contact, and what is made of it for whoever asks."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from client.clock import CLOCK_S
from client.flower.line import Contact
from client.home import SiteHome
from client.pausing import paused
from rainhill import signed
from rainhill.errors import CredentialError
from rainhill.files import is_held, write_whole

log = logging.getLogger(__name__)

EVERY_S = 2.0
REMIND_S = 10.0
"""A time of contact that is older is written anew, though nothing else has changed."""


def keep_status(home: SiteHome, contact: Contact, stop: threading.Event) -> None:
    """Writes it where it changed, until `stop` is set; then nothing is left of it."""
    told, at, problem = "", 0.0, ""
    while not stop.wait(EVERY_S):
        connected = contact.node is not None and not contact.reason
        ahead = contact.ahead_s if contact.ahead_s is not None and abs(contact.ahead_s) > CLOCK_S else 0.0
        # Where the clock is wrong, the reason tells of each time anew.
        words, last = f"{connected} {contact.reason if not ahead else round(ahead)}", contact.last or 0.0
        if words != told or last - at > REMIND_S:
            document = {"connected": connected, "last_contact": contact.last, "reason": contact.reason, "clock_ahead_s": ahead}
            try:
                write_whole(home.status, json.dumps(document).encode(), private=True)
                told, at = words, last
                problem = ""
            except OSError as error:
                # Once, and not every two seconds: the log may lie on the same disk.
                if str(error) != problem:
                    log.warning("what is known of the contact cannot be written: %s", error)
                problem = str(error)
    try:
        home.status.unlink(missing_ok=True)
    except OSError as error:
        log.warning("what was known of the contact cannot be taken away: %s", error)


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
        "paused": str(pause) if (pause := paused(home)) else None,
        "clock_ahead_s": known.get("clock_ahead_s") or None,
    }


def _or_none(look: Callable[[], str]) -> str | None:
    try:
        return look()
    except CredentialError:
        return None


def is_running(home: SiteHome) -> bool:
    return is_held(home.lock)


def _known(home: SiteHome) -> dict[str, Any]:
    try:
        return dict(json.loads(home.status.read_bytes()))
    except FileNotFoundError:
        return {}
