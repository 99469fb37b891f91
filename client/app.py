"""The site's side of Flower: says who it is, and answers plans."""

import logging
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.training.answer import Answer
from rainhill import wire
from rainhill.messages import Plan, Refusal, SiteId, Update

log = logging.getLogger(__name__)


Respond = Callable[[SiteId, bytes], bytes]
"""An exchange of secure aggregation."""


def client_app(site_of: Callable[[Context], SiteId], answer: Answer, respond: Respond) -> ClientApp:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return Message(RecordDict({"hello": ConfigRecord({"site": site_of(context)})}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower calls with both
        plan = wire.plan_from_bytes(wire.from_record(message.content))
        return Message(wire.to_record(wire.answer_to_bytes(_guarded(answer, plan))), reply_to=message)

    @app.query("secure")
    def secure(message: Message, context: Context) -> Message:
        try:
            answered = respond(site_of(context), wire.from_record(message.content))
        except Exception:
            log.exception("%s: an exchange of secure aggregation failed", site_of(context))
            raise RuntimeError("an error at the site, written to its own log") from None
        return Message(wire.to_record(answered), reply_to=message)

    return app


def _guarded(answer: Answer, plan: Plan) -> Update | Refusal:
    """Flower sends an exception's text to the coordinator, and it may name a patient's file: it is logged here, and stays here."""
    try:
        return answer(plan)
    except Exception:
        log.exception("%s: round %d failed", plan.site, plan.round)
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason="an error at the site, written to its own log")
