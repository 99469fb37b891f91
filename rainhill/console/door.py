"""Signing in to a console and out of it, and whose a request is."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from rainhill.console.frame import Console, Visitor
from rainhill.console.sessions import Session, Sessions, Unsigned
from rainhill.console.throttle import Throttle

LOOK = "X-Rainhill-Look"
"""Header of a page that looks by itself whether it is up to date: a session does not live on by that."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Whose a request is."""

    session: Session
    token: str
    """Of a visitor who has signed in; empty else."""
    visitor: Visitor | None
    """None where nobody has signed in."""
    fresh: bool
    """Whether the browser has yet to be given the token."""


class Door:
    def __init__(self, console: Console, sessions: Sessions | None = None, throttle: Throttle | None = None) -> None:
        self._console = console
        self.sessions, self._throttle, self._unsigned = sessions or Sessions(), throttle or Throttle(), Unsigned()
        # A password takes 64 MiB to look at: one at a time.
        self._one = threading.Lock()

    def known(self, request: Request) -> Known:
        """A new session, of nobody, where the request shows none that holds."""
        token = request.cookies.get(self._console.cookie, "")
        session = self.sessions.find(token, touch=LOOK not in request.headers)
        visitor = self._visitor(session) if session else None
        if session and visitor:
            return Known(session=session, token=token, visitor=visitor, fresh=False)
        self.sessions.end(token)
        return Known(session=self._unsigned.opened(token) or Session(), token="", visitor=None, fresh=True)

    def sign_in(self, name: str, password: str) -> str:
        """Why not, empty where this is an account and its password. Nothing in it tells whether there is such an account."""
        with self._one:
            wait = self._throttle.wait_s(name)
            if wait > 0:
                return f"Too many wrong passwords for this account: wait {wait:.0f} s, then try again."
            if self._console.accounts.verified(name, password) is None:
                self._throttle.failed(name)
                return "There is no such account, or this is not its password."
            self._throttle.succeeded(name)
            return ""

    def let_in(self, known: Known, name: str, role: str = "") -> Known:
        """A new session for whoever has signed in; the token from before is worth nothing. `role` is empty for a local account."""
        session = Session(name=name, role=role, after=known.session.after)
        self.sessions.end(known.token)
        return Known(session=session, token=self.sessions.begin(session), visitor=self._visitor(session), fresh=True)

    def mark(self, known: Known, response: Response) -> Response:
        """Gives the browser its token."""
        if known.fresh:
            token = known.token or self._unsigned.sealed(known.session)
            # Lax: who follows a link from a mail, or comes back from signing in elsewhere, is known. Nothing is done by GET.
            response.set_cookie(self._console.cookie, token, httponly=True, samesite="lax", secure=self._console.secure)
        return response

    def _visitor(self, session: Session) -> Visitor | None:
        if session.role:
            return Visitor(name=session.name, role=session.role)
        account = self._console.accounts.all().get(session.name)
        if account is None or datetime.fromisoformat(account.changed) > session.began:
            return None
        return Visitor(name=account.name, role=account.role)


def inside(path: str, query: Mapping[str, str]) -> str:
    """Where somebody wanted to go, as a path of this very console: nobody is led elsewhere."""
    from urllib.parse import urlencode

    safe = path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
    return f"{safe}?{urlencode(query)}" if query else safe
