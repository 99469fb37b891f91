"""A hospital's own folder: what its file calls `state`. Its keys, what the consortium gave it, its ledger."""

import json
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rainhill
from client.embedded import EMBEDDED
from client.identity import Identity, load, new_identity
from client.privacy.ledger import Ledger
from rainhill import signed, weights, wire
from rainhill.bundle import MANIFEST, unpack
from rainhill.config import SiteConfig, state_folder
from rainhill.enrolment import BUNDLE, Bundle, SiteRequest, read_document, sealed_request
from rainhill.errors import ConfigError, CredentialError, LedgerError, RefusedError
from rainhill.files import alone, private_folder, read_private, write_whole
from rainhill.toml import parse, read_toml

LAST, OUTCOME = "last.plan", "outcome.json"
"""In the folder of a run: what it came to, as it was brought; and what the site made of that."""


@dataclass(frozen=True, kw_only=True)
class SiteHome:
    file: Path
    """The site's own, absolute."""
    config: SiteConfig
    state: Path

    @classmethod
    def open(cls, site_file: Path) -> "SiteHome":
        """Of the site of this file. Looks at nothing but the file."""
        config = read_toml(site_file, SiteConfig)
        return cls(file=site_file.absolute(), config=config, state=state_folder(site_file, config))

    def again(self) -> "SiteHome":
        """As the site's file says now: what its people change in it counts at once. ConfigError where it names another folder or site."""
        now = SiteHome.open(self.file)
        for what, got, before in (("name", now.config.name, self.config.name), ("state", now.state, self.state)):
            if got != before:
                raise ConfigError(f"{self.file}: {what} is {got} now, and was {before} when the daemon began: start it again")
        return now

    @property
    def keys(self) -> Path:
        return self.state / "identity"

    @property
    def consortium(self) -> Path:
        """What the bundle held, once the site has joined."""
        return self.state / "consortium"

    @property
    def ca(self) -> Path:
        return self.consortium / "ca.crt"

    @property
    def lock(self) -> Path:
        """Held by the site's daemon."""
        return self.state / "serve.lock"

    @property
    def node(self) -> Path:
        """Flower's number of the site's node."""
        return self.state / "node"

    @property
    def address(self) -> str:
        """HOST:PORT of the coordinator."""
        coordinator = self.bundle().coordinator
        return f"{coordinator.host}:{coordinator.port}"

    @property
    def status(self) -> Path:
        """What the daemon last knew of its contact."""
        return self.state / "status.json"

    @property
    def offers(self) -> Path:
        """What the site was asked, sealed, a file each."""
        return self.state / "offers"

    @property
    def held(self) -> Path:
        """Updates that wait for somebody at the site to release them."""
        return self.state / "held"

    @property
    def paused(self) -> Path:
        """A file whose being there says that nothing is worked on."""
        return self.state / "paused"

    @property
    def cache(self) -> Path:
        """Pixels and hidden states, which can all be made again."""
        return self.state / "cache"

    def run(self, name: str) -> Path:
        """What the site keeps of a run, and never sends."""
        return self.state / "runs" / name

    def base_of(self, sha256: str) -> Path:
        """The folder of the base model with these weights. RefusedError where the bundle brought none, and none is embedded."""
        for name, pinned in ((base.name, base.sha256) for base in self.bundle().bases):
            if pinned == sha256:
                return self.consortium / "bases" / name
        for folder in sorted(path for path in EMBEDDED.iterdir() if path.is_dir()):
            if weights.digest(folder) == sha256:
                return folder
        raise RefusedError(f"base model {sha256[:12]}: is not at this site; the consortium's operator packs it into a new bundle")

    def pseudonym_key(self) -> bytes:
        """What patients' names in the ledger are made with: 32 bytes, made when they are first wanted, and kept for good.

        LedgerError where the key is gone and patients were charged under the names that it made: under new ones they would spend again.
        """
        path, ledger = self.state / "pseudonym.key", Ledger(self.state, site=self.config.name).path
        with alone(self.state / "pseudonym.lock"):
            if not path.exists():
                if ledger.exists():
                    raise LedgerError(
                        f"{path}: is gone, and {ledger} names patients by it. With a new one they would spend their budgets a "
                        "second time: put the old one back"
                    )
                private_folder(self.state)
                write_whole(path, secrets.token_bytes(32), private=True)
            return read_private(path)

    def trusted(self) -> bytes:
        """PEM of the authorities that the coordinator's certificate may be of. CredentialError for an extra one that cannot be read."""
        extra = self.config.network.extra_ca
        if extra is None:
            return self.ca.read_bytes()
        path = self.file.parent / extra.expanduser()
        try:
            return self.ca.read_bytes() + b"\n" + path.read_bytes()
        except OSError as error:
            raise CredentialError(f"[network] extra_ca: {path}: cannot be read: {error.strerror}") from error

    def identity(self) -> Identity:
        """CredentialError where the site has none, or others may read it."""
        if not self.keys.exists():
            raise CredentialError(f"{self.config.name}: has no keys in {self.keys}; `rainhill site init` makes them")
        return load(self.keys)

    def bundle(self) -> Bundle:
        """What the consortium told. CredentialError where the site has not joined one."""
        path = self.consortium / MANIFEST
        if not path.exists():
            raise CredentialError(f"{self.config.name}: has joined no consortium; `rainhill site join` does, with the coordinator's bundle")
        envelope = path.read_bytes()
        # Whose it is was compared when the site joined; here only that it is still the same.
        own = (signed.Envelope.from_bytes(envelope).key,)
        return read_document(signed.opened(envelope, purpose=BUNDLE, trusted=own), Bundle, what=str(path))


def outcomes(home: SiteHome) -> dict[str, dict[str, Any]]:
    """Run -> what it came to at this site, as `client.outcome` has described it."""
    return {path.parent.name: dict(json.loads(path.read_bytes())) for path in sorted(home.state.glob(f"runs/*/{OUTCOME}"))}


def begin(home: SiteHome, *, rotate: bool = False) -> bytes:
    """New keys, made here and kept here, and the request that tells the coordinator the public ones.

    CredentialError where the site has keys already, unless they are to be replaced; the old ones are kept beside. ConfigError for a name
    or a title that no request takes.
    """
    private_folder(home.state)
    if home.keys.exists() and not rotate:
        raise CredentialError(f"{home.keys}: has keys already; --again writes their request again, --rotate makes new ones")
    identity = new_identity()
    request = _request(home, identity)
    fresh = home.keys.with_name("identity.new")
    shutil.rmtree(fresh, ignore_errors=True)
    identity.keep(fresh)
    if home.keys.exists():
        home.keys.replace(home.keys.with_name(f"identity-until-{datetime.now(UTC):%Y%m%d-%H%M%S}"))
    fresh.replace(home.keys)
    return request


def request_of(home: SiteHome) -> bytes:
    """The request of a site that has keys, as often as it is wanted."""
    return _request(home, home.identity())


def _request(home: SiteHome, identity: Identity) -> bytes:
    about = {
        "name": home.config.name,
        "title": home.config.title,
        "node_key": identity.node_public,
        "signing_key": identity.signing_public.hex(),
        "made": datetime.now(UTC),
        "software": f"rainhill {rainhill.__version__}",
        "protocols": wire.VERSIONS,
    }
    return sealed_request(parse(about, SiteRequest, origin=str(home.file)), signing=identity.signing, node=identity.node)


def join(home: SiteHome, path: Path, *, expect: str) -> Bundle:
    """Takes in a bundle of the consortium whose key has the fingerprint `expect`; one that was joined before is replaced.

    CredentialError for one that does not hold, RefusedError for one that is another site's or for other keys, or older than the last.
    """
    identity, fresh = home.identity(), home.state / "consortium.new"
    shutil.rmtree(fresh, ignore_errors=True)
    bundle = unpack(path, fresh, expect=expect, now=datetime.now(UTC))
    try:
        _refuse_anothers(home, identity, bundle, path)
    except RefusedError:
        shutil.rmtree(fresh)
        raise
    before = home.state / "consortium.before"
    shutil.rmtree(before, ignore_errors=True)
    if home.consortium.exists():
        home.consortium.replace(before)
    fresh.replace(home.consortium)
    return bundle


def leave(home: SiteHome) -> Bundle:
    """Forgets the consortium. Keys and ledger stay: what the patients have spent is spent wherever they go."""
    bundle = home.bundle()
    for folder in (home.consortium, home.state / "consortium.before"):
        shutil.rmtree(folder, ignore_errors=True)
    return bundle


def _refuse_anothers(home: SiteHome, identity: Identity, bundle: Bundle, path: Path) -> None:
    if bundle.site != home.config.name:
        raise RefusedError(f"{path}: is for site {bundle.site!r}, and this is {home.config.name!r}")
    own, enrolled = signed.fingerprint(identity.signing_public), bundle.peers.get(home.config.name)
    if enrolled is None or enrolled != identity.signing_public.hex():
        known = signed.fingerprint(bytes.fromhex(enrolled)) if enrolled else "none"
        raise RefusedError(
            f"{path}: is for {bundle.site} with key {known}, and its key here is {own}: have the coordinator enrol or rotate it"
        )
