"""What a daemon writes of what happens: one line each, of ours and of nobody who only works for us."""

import json
import logging
import sys
from datetime import UTC, datetime

CHATTY = {
    "alembic": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "uvicorn": logging.WARNING,
    "flwr": logging.ERROR,
}
"""Libraries that tell of each call: from which level on they are heard."""


class _Line(logging.Formatter):
    """One line for each message: what came from outside neither begins another nor moves the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = "".join(one if one.isprintable() else repr(one)[1:-1] for one in record.message)
        return super().formatMessage(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


def to_stderr(*, as_json: bool = False) -> None:
    """All of this process's loggers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if as_json else _Line("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    quieten()


def quieten() -> None:
    """To be called again once Flower is imported, which then has its logger write every line by itself too."""
    for name, level in CHATTY.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers.clear()
    flower = logging.getLogger("flwr")
    if not any(isinstance(known, _NotTheirFault) for known in flower.filters):
        flower.addFilter(_NotTheirFault())


class _NotTheirFault(logging.Filter):
    """Without what Flower answers to calls that are not as they should be: whoever calls could fill the disk with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "[ApiError:" not in record.getMessage()
