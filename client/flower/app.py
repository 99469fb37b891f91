"""The site's side of Flower: says who it is, and answers plans."""

import logging
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.flower.node import Work
from rainhill import wire
from rainhill.greeting import sealed_greeting
from rainhill.messages import UNTOLD, Plan, Refusal, SiteId, Update

log = logging.getLogger(__name__)

SiteOf = Callable[[Context], SiteId]
Respond = Callable[[SiteId, bytes], bytes]
"""An exchange of secure aggregation."""


def at_work(app: ClientApp) -> Work:
    """What a node does with a message: has the app answer it, which keeps nothing from one to the next."""

    def work(message: Message) -> Message:
        about = message.metadata
        return app(message, Context(run_id=about.run_id, node_id=about.dst_node_id, node_config={}, state=RecordDict(), run_config={}))

    return work


def greeter(site_of: SiteOf, signing: bytes | None = None) -> ClientApp:
    """Says which site this is; with its Ed25519 private key, so that it is believed."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        site, asked = site_of(context), message.content.config_records["hello"]
        about = ConfigRecord({"site": site})
        if signing is not None:
            nonce = asked["nonce"]
            assert isinstance(nonce, bytes)
            about["greeting"] = sealed_greeting(site, nonce, signing)
        return Message(RecordDict({"hello": about}), reply_to=message)

    return app


def client_app(site_of: SiteOf, answer: Callable[[Plan], Update | Refusal], respond: Respond) -> ClientApp:
    """The greeter, which answers plans and exchanges of secure aggregation too."""
    app = greeter(site_of)

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
            raise RuntimeError(UNTOLD) from None
        return Message(wire.to_record(answered), reply_to=message)

    return app


def _guarded(answer: Callable[[Plan], Update | Refusal], plan: Plan) -> Update | Refusal:
    """Flower sends an exception's text to the coordinator, and it may name a patient's file: it is logged here, and stays here."""
    try:
        return answer(plan)
    except Exception:
        log.exception("%s: round %d failed", plan.site, plan.round)
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=UNTOLD)
