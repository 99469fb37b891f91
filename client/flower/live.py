"""The site's side of a live run: a plan counts with the consortium's signature, is worked on once, and its answer bears the site's."""

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.flower.app import greeter
from rainhill import wire
from rainhill.errors import ProtocolError, RainhillError, RefusedError
from rainhill.messages import UNTOLD, Plan, Receipt, Refusal, SiteId, Update, Waiting
from rainhill.stamp import ANSWER, EXCHANGE, EXCHANGED, PLAN, stamped, unstamped

log = logging.getLogger(__name__)

Answer = Callable[[Plan], Update | Refusal | Waiting | Receipt]
Stand = Callable[[bytes, int, bytes], bytes]
"""A sealed offer, the number of a round and a nonce -> how the site stands to it, sealed."""


Exchange = Callable[[bytes], bytes]
"""One of secure aggregation."""


def no_exchange(blob: bytes) -> bytes:
    raise RefusedError(f"an exchange of secure aggregation ({len(blob)} bytes), and nothing here is masked")


def live_app(
    site: SiteId, answer: Answer, *, stand: Stand, exchange: Exchange = no_exchange, signing: bytes, consortium: bytes
) -> ClientApp:
    """`signing` is the site's Ed25519 private key, `consortium` the public one of its consortium."""
    app, once = greeter(lambda _: site, signing), _Once()

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower calls with both
        asked = message.content.config_records["offer"]
        sealed, number, nonce = asked["offer"], asked["round"], asked["nonce"]
        if not (isinstance(sealed, bytes) and isinstance(number, int) and isinstance(nonce, bytes)):
            raise ProtocolError("an offer that is no offer")
        return Message(RecordDict({"offer": ConfigRecord({"standing": stand(sealed, number, nonce)})}), reply_to=message)

    @app.query("secure")
    def secure(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower calls with both
        blob = unstamped(wire.from_record(message.content), consortium, purpose=EXCHANGE)
        return Message(wire.to_record(stamped(exchange(blob), signing, purpose=EXCHANGED)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower calls with both
        blob = unstamped(wire.from_record(message.content), consortium, purpose=PLAN)
        given = once(blob, lambda: _in_version(wire.version_of(blob), _answered(site, answer, wire.plan_from_bytes(blob))))
        return Message(wire.to_record(stamped(given, signing, purpose=ANSWER)), reply_to=message)

    return app


def _answered(site: SiteId, answer: Answer, plan: Plan) -> Update | Refusal | Waiting | Receipt:
    if plan.site != site:
        raise ProtocolError(f"a plan for {plan.site}, and this is {site}")
    try:
        return answer(plan)
    except (RainhillError, OSError) as error:
        log.warning("round %d of run %s: %s", plan.round, plan.run, error)
    except Exception:
        log.exception("round %d of run %s failed", plan.round, plan.run)
    return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=UNTOLD)


def _in_version(version: int, given: Update | Refusal | Waiting | Receipt) -> bytes:
    """Written as the plan was; what that version cannot say is refused, and the coordinator told why."""
    try:
        return wire.answer_to_bytes(given, version=version)
    except ProtocolError as error:
        log.warning("round %d of run %s: %s", given.round, given.run, error)
        return wire.answer_to_bytes(Refusal(run=given.run, round=given.round, site=given.site, reason=str(error)), version=version)


class _Once:
    """Who brings the same message while it is worked on waits for the same answer: a coordinator that was restarted asks again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[bytes, Future[bytes]] = {}

    def __call__(self, message: bytes, work: Callable[[], bytes]) -> bytes:
        name = hashlib.sha256(message).digest()
        with self._lock:
            known = self._under_way.get(name)
            mine = self._under_way[name] = known or Future()
        if known is not None:
            return known.result()
        try:
            mine.set_result(work())
        except BaseException as error:
            mine.set_exception(error)
        finally:
            with self._lock:
                del self._under_way[name]
        return mine.result()
