"""Whether a site is ready to serve: each thing that it rests on, what was found, and what to do where it is not as it should be."""

import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import httpx

from client.clock import CLOCK_S, both_clocks
from client.home import SiteHome
from client.journal import Journal
from client.privacy.ledger import Ledger
from client.status import status_of
from rainhill import signed, weights
from rainhill.errors import CredentialError, RainhillError

ROOM = 2**30
"""Bytes that a site should have left for a run."""
WARN_DAYS = 30
REACH_S = 10.0
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for."""
_OF_TIME = "certificate has expired", "certificate is not yet valid"
_UNREACHED = httpx.HTTPError, OSError, KeyError, ValueError, CredentialError


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks(home: SiteHome) -> list[Check]:
    """In the order in which one thing rests on the others; those that rest on one that failed are left out."""
    own = {"keys": _keys, "disk": _disk, "journal": _journal, "ledger": _ledger}
    found = [*(_try(name, partial(look, home)) for name, look in own.items()), _data(home)]
    try:
        bundle = home.bundle()
    except CredentialError as error:
        return [*found, Check(name="consortium", ok=False, found=str(error))]
    said = f"{bundle.title or bundle.consortium}, key {signed.fingerprint(bytes.fromhex(bundle.consortium_key))}"
    return [
        *found,
        Check(name="consortium", ok=True, found=said),
        *(_try(f"base model {base.name}", partial(_base, home, base.name, base.sha256)) for base in bundle.bases),
        *_coordinator(home),
    ]


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, found=look())
    except (RainhillError, OSError) as error:
        return Check(name=name, ok=False, found=str(error))


def _keys(home: SiteHome) -> str:
    return f"fingerprint {signed.fingerprint(home.identity().signing_public)}"


def _disk(home: SiteHome) -> str:
    with tempfile.TemporaryFile(dir=home.state) as file:
        file.write(b"may be written")
    free = shutil.disk_usage(home.state).free
    if free < ROOM:
        raise OSError(f"{home.state}: {free / 2**20:.0f} MiB are free, {ROOM / 2**20:.0f} are wanted")
    return f"{free / 2**30:.1f} GiB free in {home.state}"


def _journal(home: SiteHome) -> str:
    journal = Journal.existing(home.state, site=home.config.name)
    return f"{journal.verify()} entries hold" if journal else "none yet; the daemon begins it"


def _ledger(home: SiteHome) -> str:
    ledger = Ledger.existing(home.state, site=home.config.name)
    return f"{ledger.verify()} entries hold" if ledger else "none yet; the first private run begins it"


def _data(home: SiteHome) -> Check:
    if home.config.data is None:
        return Check(
            name="data", ok=False, found="the site's file names none", remedy="docs/data.md says how [data] tells of films and labels"
        )
    return _try("data", lambda: _counted(home))


def _counted(home: SiteHome) -> str:
    from client.data import manifest

    assert home.config.data is not None
    rows = manifest.read(home.config.data, findings=(), base=home.file.parent)
    return f"{len(rows)} images of {len({row.patient for row in rows})} patients"


def _base(home: SiteHome, name: str, pinned: str) -> str:
    found = weights.digest(home.consortium / "bases" / name)
    if found != pinned:
        raise CredentialError(f"its sha256 is {found[:12]}, the consortium's is {pinned[:12]}: join again with a new bundle")
    return f"sha256 {found[:12]}"


def _coordinator(home: SiteHome) -> Iterator[Check]:
    """As the daemon will reach it: through the same proxy, with the same trust."""
    address = home.address
    try:
        ends, theirs = _reached(home)
    except _UNREACHED as error:
        yield Check(name="coordinator", ok=False, found=f"{address}: {error}", remedy=_remedy(error))
        if any(words in str(error) for words in _OF_TIME):
            yield from _clock_alone(home)
        return
    yield Check(name="coordinator", ok=True, found=f"{address} answers")
    left = (ends - datetime.now(UTC)).days
    remedy = "" if left >= WARN_DAYS else "tell the coordinator's operator: `rainhill coordinator renew`"
    yield Check(name="certificate", ok=True, found=f"expires {ends:%Y-%m-%d}, in {left} days", remedy=remedy)
    yield _clock(theirs)
    yield _contact(home)


def _reached(home: SiteHome, *, at_any_time: bool = False) -> tuple[datetime, datetime]:
    """When the coordinator's certificate ends, and what its clock shows. `at_any_time`: the certificate may be over, or yet to begin."""
    trusted = ssl.create_default_context(cadata=home.trusted().decode("ascii"))
    if at_any_time:
        trusted.verify_flags |= _NO_CHECK_TIME
    proxy = home.config.network.proxy or None
    with (
        httpx.Client(verify=trusted, proxy=proxy, timeout=REACH_S) as client,
        client.stream("GET", f"https://{home.address}/health") as answer,
    ):
        answer.raise_for_status()
        handshake = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(handshake["notAfter"]), UTC)
        return ends, parsedate_to_datetime(answer.headers["date"])


def _clock_alone(home: SiteHome) -> Iterator[Check]:
    try:
        _, theirs = _reached(home, at_any_time=True)
    except _UNREACHED:
        return
    yield _clock(theirs)


def _clock(theirs: datetime) -> Check:
    # The header has whole seconds: half a second more is nobody's fault.
    ours = datetime.now(UTC)
    ahead = (ours - theirs).total_seconds() - 0.5
    if abs(ahead) < CLOCK_S:
        return Check(name="clock", ok=True, found="the same as the coordinator's, to a few seconds")
    return Check(
        name="clock",
        ok=False,
        found=f"{both_clocks(ours, theirs)}: {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}",
        remedy="set the one that is wrong, by NTP for instance: calls with another time are refused",
    )


def _contact(home: SiteHome) -> Check:
    """Whether the coordinator takes this site's key: the daemon knows, or it is tried."""
    about = status_of(home)
    if about["daemon"] == "running":
        reason = "" if about["connected"] else about["reason"] or "the daemon is not in contact yet"
        stale = "a daemon that runs keeps the keys and the bundle that it began with: start it again where they have changed"
        return Check(name="contact", ok=not reason, found=reason or "the daemon is in contact", remedy=stale if reason else "")
    from client.flower.line import Where, try_key

    if home.config.network.proxy:
        os.environ["HTTPS_PROXY"] = home.config.network.proxy
    reason = try_key(Where(address=home.address, trusted=home.trusted(), key=home.identity().node), home.node)
    return Check(name="contact", ok=not reason, found=reason or "the coordinator takes this site's key")


def _remedy(error: Exception) -> str:
    words = str(error)
    if "certificate has expired" in words:
        return "tell the coordinator's operator: `rainhill coordinator renew` makes a new one; unless this machine's clock is ahead"
    if "certificate is not yet valid" in words:
        return "it was made later than this machine's clock shows: set the clock, by NTP for instance"
    if "Name or service not known" in words or "getaddrinfo" in words or "name resolution" in words:
        return "the name is not known here: ask for its entry in the hospital's DNS, or whether a proxy is to be used (HTTPS_PROXY)"
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return "somebody else's certificate is shown: does a proxy open TLS on the way, or is the bundle of another consortium?"
    if "refused" in words or "timed out" in words.lower():
        return "the address does not answer: is the port open outwards in the firewall, and does the coordinator run?"
    return ""
