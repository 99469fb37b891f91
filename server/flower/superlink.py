"""The coordinator's SuperLink: Flower's own, behind a guard that opens nothing but the sites' part of it to the network.

Flower serves sites, operators and apps at one port, and asks an operator for nothing. Here the public port takes the calls of enrolled
sites alone. All else is served at a second port on loopback, where an operator's calls need the secret that only the coordinator has.
"""

import hmac
import json
import logging
import os
import socket
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rainhill import logs
from rainhill.supervise import end_with_parent
from rainhill.toml import Section, parse
from server.flower.few import App, Few, Receive, Scope, Send, whole

log = logging.getLogger("server.flower.superlink")
"""Not __name__, which is __main__ here."""

LARGEST = 8 * 2**20
"""Bytes of one request of a site. Flower cuts what is larger into pieces of 5 MiB."""
SITE_CALLS = frozenset(
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
)
"""Neither to register oneself, which enrolment does, nor to fetch an app: a site runs the code that it installed."""
CONTROL = "/v1/control/"
ADMITTED = "/admitted"
"""Ours, of the private port: the node keys of all sites that are heard, as a JSON list of PEM."""
COUNTS = "/counts"
"""Ours, of the private port: how many calls were refused since the SuperLink began, as a JSON object of `Kind`."""
KEY_HEADER = b"flwr-public-key"
REFUSED = b"rainhill-refused"
"""Header of what the guard refuses; its value is the `Kind`."""
NOTE_S = 60.0
BEARER = "Bearer "
LOOPBACK = "127.0.0.1"
FAILED = 2

Kind = Literal["secret", "call", "key", "time", "length", "size"]
"""Of a call that is refused: an operator's without the coordinator's secret; none of a site; not with the key of an enrolled site; signed
at another time than this machine's, or wrongly; without its length; too large."""
WORDS: Mapping[Kind, str] = {
    "secret": "an operator's call without the coordinator's secret",
    "call": "not a call of a site",
    "key": "not the key of an enrolled site",
    "time": "signed at another time than this machine's clock shows, or wrongly: a site's clock is wrong, or this one",
    "length": "a request without its length",
    "size": f"a request of more than {LARGEST} bytes",
}


class LinkConfig(Section):
    """What a SuperLink is started with, as one JSON object; paths are absolute."""

    host: str
    """Address of this machine that sites come to, such as 0.0.0.0."""
    port: int = Field(ge=0, le=65535)
    private_port: int = Field(ge=0, le=65535)
    """On 127.0.0.1, for the coordinator's own processes."""
    ca: Path
    certificate: Path
    key: Path
    database: Path
    secret: Path
    """File of the secret that the coordinator's own processes show."""
    parent: int
    """Number of the process that starts it."""
    json_logs: bool = False


@dataclass(kw_only=True)
class Guard:
    """An ASGI application around Flower's."""

    app: App
    private: tuple[str, int]
    """Address that the coordinator's own processes come to."""
    secret: bytes
    admitted: frozenset[bytes] = frozenset()
    """Node keys of the sites that are heard, as they show them. None before the coordinator has told."""
    refused: Counter[Kind] = field(default_factory=Counter)
    """Since it began."""
    noted: Counter[Kind] = field(default_factory=Counter)
    """Of these, those that the log has told."""
    told: float = 0.0
    """time.monotonic() of that line."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else send({"type": "websocket.close"}))
            return
        reason = self._reason(scope)
        if reason is not None:
            status, kind = reason
            self._note(kind)
            await _answer(send, status, {"refused": WORDS[kind]}, kind=kind)
        elif scope["path"] == ADMITTED:
            body = await whole(receive)
            if body is not None:
                self.admitted = frozenset(b64encode(pem.encode()) for pem in json.loads(body))
                await _answer(send, 200, {})
        elif scope["path"] == COUNTS:
            await _answer(send, 200, {kind: self.refused[kind] for kind in WORDS})
        else:
            await self.app(scope, receive, self._heard(send) if scope["path"] in SITE_CALLS else send)

    def _heard(self, send: Send) -> Send:
        """As `send`; what Flower does not take for its time or its signature is counted along."""

        async def heard(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._note("time")
            await send(message)

        return heard

    def _reason(self, scope: Scope) -> tuple[int, Kind] | None:
        """Status and kind of a refusal; None for a request that may pass."""
        path, headers = scope["path"], dict(scope["headers"])
        if tuple(scope["server"]) == self.private:
            shown = headers.get(b"authorization", b"")
            own = hmac.compare_digest(shown, BEARER.encode() + self.secret)
            return None if own or not path.startswith((CONTROL, ADMITTED, COUNTS)) else (401, "secret")
        if path == "/health" and scope["method"] == "GET":
            return None
        if path not in SITE_CALLS or scope["method"] != "POST":
            return 403, "call"
        # Flower then sees that the call is signed with this key.
        if headers.get(KEY_HEADER) not in self.admitted:
            return 403, "key"
        length = headers.get(b"content-length", b"")
        # A body longer than announced never comes this far: uvicorn ends the connection.
        if not length.isdigit():
            return 411, "length"
        return (413, "size") if int(length) > LARGEST else None

    def _note(self, kind: Kind) -> None:
        """A line a minute, without what was asked for: whoever asks could fill the disk, or write the log."""
        self.refused[kind] += 1
        if time.monotonic() - self.told >= NOTE_S:
            fresh = self.refused - self.noted
            log.warning("refused: %s", "; ".join(f"{count} times {WORDS[kind]}" for kind, count in fresh.most_common()))
            self.noted, self.told = self.refused.copy(), time.monotonic()


async def _answer(send: Send, status: int, document: Mapping[str, object], *, kind: Kind | None = None) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    if kind is not None:
        # Flower's own refusals do not have it: a site tells by it whether its key is not known or only a run is over.
        headers.append((REFUSED, kind.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(config: LinkConfig) -> None:
    """Until SIGTERM or SIGINT. OSError for a port that is taken."""
    # Before Flower is imported, which reads them then.
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
    import uvicorn

    public, private = bound(config.host, config.port), bound(LOOPBACK, config.private_port)
    guard = Guard(app=Few(app=_flower(config)), private=private.getsockname()[:2], secret=config.secret.read_bytes())
    server = uvicorn.Server(
        uvicorn.Config(
            guard,
            ssl_certfile=config.certificate,
            ssl_keyfile=str(config.key),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    )
    log.info("SuperLink: sites at %s:%d, the coordinator at 127.0.0.1:%d", *public.getsockname()[:2], private.getsockname()[1])
    server.run(sockets=[public, private])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; OSError that names both."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen at {host}:{port}: {error.strerror}") from error


def _flower(config: LinkConfig) -> App:
    """Flower's application, with the authentication of sites and of executors."""
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
    from flwr.superlink.main import create_app

    # Before it opens its database, of which it tells much.
    logs.quieten()
    files = config.ca, config.certificate, config.key
    lifespan = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=config.host,
        port=config.port,
        insecure=False,
        certificates=(files[0].read_bytes(), files[1].read_bytes(), files[2].read_bytes()),
        superexec_auth_secret=config.secret.read_bytes(),
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(config.ca),
        ssl_certfile=str(config.certificate),
        ssl_keyfile=str(config.key),
        database=str(config.database),
        # No app is ever started by the SuperLink itself.
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    return create_app(lifespan, SuperLinkLifespan)


def main() -> None:
    config = parse(json.loads(sys.argv[1]), LinkConfig, origin="the SuperLink's configuration")
    logs.to_stderr(as_json=config.json_logs)
    end_with_parent(config.parent)
    try:
        serve(config)
    except OSError as error:
        log.error("%s", error)  # noqa: TRY400 - a line, as for any port that is taken
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
