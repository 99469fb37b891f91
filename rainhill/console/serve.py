"""A console in a process of its own, which ends with the daemon that started it."""

import logging

import uvicorn
from starlette.types import ASGIApp

from rainhill import logs
from rainhill.console.app import app_of
from rainhill.console.frame import Console
from rainhill.supervise import end_with_parent

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Calls."""
STOP_S = 3


def keep_serving(console: Console, *, parent: int, json_logs: bool = False) -> None:
    """Until SIGTERM or SIGINT. OSError for a port that is taken."""
    logs.to_stderr(as_json=json_logs)
    end_with_parent(parent)
    log.info("console at %s", console.config.origin)
    uvicorn.Server(config_of(console, app_of(console))).run()


def config_of(console: Console, app: ASGIApp) -> uvicorn.Config:
    where, files = console.config, {}
    if where.certificate and where.key:
        files = {
            "ssl_certfile": str(console.folder / where.certificate.expanduser()),
            "ssl_keyfile": str(console.folder / where.key.expanduser()),
        }
    return uvicorn.Config(
        app,
        host=where.bind,
        port=where.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=AT_ONCE,
        timeout_graceful_shutdown=STOP_S,
        lifespan="off",
        ws="none",
        **files,  # type: ignore[arg-type]
    )
