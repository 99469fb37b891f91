"""Who is signed in to a console, and until when. Sessions are kept in memory, those of nobody by the browser: a restart ends them all."""

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.fernet import Fernet, InvalidToken

IDLE_S, LONGEST_S = 30 * 60.0, 10 * 3600.0
"""A session is over when nothing was asked for so long, and when it began so long ago."""
UNSIGNED_S = 15 * 60.0
"""For somebody to type a password, or to come back from where they sign in."""
MOST = 1000
"""Sessions at once, of which the one that was idle longest gives way."""
_LONGEST_AFTER = 500
"""Characters: a browser keeps no cookie of more than 4,096."""


@dataclass(kw_only=True)
class Session:
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """What each form of it must bring along."""
    name: str = ""
    """Whose it is; empty before somebody has signed in: then nothing of it is kept here, however many ask."""
    role: str = ""
    """As who signs people in elsewhere said; empty for a local account, whose role is looked up each time."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    after: str = "/"
    """The page that was asked for before anybody had signed in."""
    said: list[tuple[str, str]] = field(default_factory=list)
    """(kind, words), to be shown once: `done` or `failed`."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a way of signing in keeps between two of its steps."""
    first_s: float = 0.0
    last_s: float = 0.0
    """When it began and when it was last used, by the clock that the sessions go by."""

    def own(self, csrf: str) -> bool:
        """Whether a form comes from one of this session's pages."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class Sessions:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._known: dict[bytes, Session] = {}

    def begin(self, session: Session) -> str:
        """What the browser is to show from now on: 256 bits that nobody can guess, and that are kept here as their hash only."""
        token, now = secrets.token_urlsafe(32), self._clock()
        session.first_s = session.last_s = now
        with self._lock:
            self._known = {key: one for key, one in self._known.items() if self._holds(one, now)}
            if len(self._known) >= MOST:
                del self._known[min(self._known, key=lambda key: self._known[key].last_s)]
            self._known[_key(token)] = session
        return token

    def find(self, token: str, *, touch: bool = True) -> Session | None:
        """The session of this token, which is used by it unless a page only looks whether it is up to date."""
        now = self._clock()
        with self._lock:
            one = self._known.get(_key(token))
            if one is None or not self._holds(one, now):
                return None
            if touch:
                one.last_s = now
            return one

    def end(self, token: str) -> None:
        with self._lock:
            self._known.pop(_key(token), None)

    def _holds(self, one: Session, now: float) -> bool:
        return now - one.last_s < IDLE_S and now - one.first_s < LONGEST_S


class Unsigned:
    """Sessions of nobody, which the browser keeps: sealed, so that it can neither read nor make one, and for so long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._seal = clock, Fernet(Fernet.generate_key())

    def sealed(self, session: Session) -> str:
        after = session.after if len(session.after) <= _LONGEST_AFTER else "/"
        kept = json.dumps({"csrf": session.csrf, "after": after, "notes": session.notes})
        return self._seal.encrypt_at_time(kept.encode(), int(self._clock())).decode()

    def opened(self, token: str) -> Session | None:
        try:
            kept = json.loads(self._seal.decrypt_at_time(token, int(UNSIGNED_S), int(self._clock())))
        except (InvalidToken, ValueError):
            return None
        return Session(csrf=kept["csrf"], after=kept["after"], notes=kept["notes"])


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
