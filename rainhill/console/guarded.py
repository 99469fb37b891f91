"""What stands before a console: nothing is answered under a foreign name, and no answer lets a browser do more than it must."""

from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rainhill.listening import LOOPBACK_HOSTS

MOST_BYTES = 64 * 1024
"""Of a form."""
# Content Security Policy Level 3: nothing from elsewhere, no script or style in a page, in no frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer", with which a form's Origin is "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_YEAR_S = 365 * 24 * 3600


class Guarded:
    """The app behind it sees calls under the console's own name only, and no form of another's."""

    def __init__(self, app: ASGIApp, *, origin: str) -> None:
        self._app, self._origin = app, origin
        own = urlsplit(origin)
        # On its own loopback a machine goes by several names. Any other is somebody's who has a name of theirs lead here (DNS rebinding).
        names = LOOPBACK_HOSTS if own.hostname in LOOPBACK_HOSTS else (own.hostname or "",)
        self._origins = {f"{own.scheme}://{f'[{name}]' if ':' in name else name}{f':{own.port}' if own.port else ''}" for name in names}
        self._secure = own.scheme == "https"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_ALWAYS)
                headers.setdefault("Cache-Control", "no-store")
                if self._secure:
                    headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
            await send(message)

        status, words = self._refused(scope["method"], Headers(scope=scope))
        if words:
            return await PlainTextResponse(words + "\n", status)(scope, receive, dressed)
        return await self._app(scope, receive, dressed)

    def _refused(self, method: str, headers: Headers) -> tuple[HTTPStatus, str]:
        host = headers.get("host", "")
        if not any(known.endswith(f"://{host}") for known in self._origins):
            return HTTPStatus.MISDIRECTED_REQUEST, f"this console is reached by {self._origin}, and not by {host[:200]!r}"
        if method in ("GET", "HEAD"):
            return HTTPStatus.OK, ""
        if method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED, f"{method[:20]!r} is not answered here"
        origin = headers.get("origin", "")
        if origin not in self._origins:
            return HTTPStatus.FORBIDDEN, f"a form of {origin[:200] or 'nobody knows where'!r} is not taken here"
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            return (
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a form says how many bytes it has, {MOST_BYTES} at most; this says {length[:20]!r}",
            )
        return HTTPStatus.OK, ""
