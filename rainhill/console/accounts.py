"""Who may sign in to a console: local accounts, each with a role and a hash of its password. Argon2id: RFC 9106."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from rainhill.errors import CredentialError, RefusedError
from rainhill.files import alone, read_private, write_whole
from rainhill.listening import ConsoleConfig
from rainhill.text import did_you_mean

SHORTEST, LONGEST = 12, 200
"""Characters of a password. NIST SP 800-63B-4, 3.1.1: length counts, and no mixture of kinds is asked for."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    role: str
    hash: str
    """Of the password, as a PHC string."""
    changed: str
    """When role or password were last set, ISO 8601: sessions that are older are over."""


@dataclass(frozen=True, kw_only=True)
class Accounts:
    path: Path
    """A JSON file that its owner alone may read; there is none before the first account."""
    roles: Sequence[str]
    """That there are."""

    def all(self) -> dict[str, Account]:
        """By name. CredentialError for a file that others may read, or that is none of ours."""
        if not self.path.exists():
            return {}
        try:
            return {one["name"]: Account(**one) for one in json.loads(read_private(self.path))}
        except (ValueError, TypeError, KeyError) as error:
            raise CredentialError(f"{self.path}: is no list of accounts: {error}") from error

    def let_anybody_in(self, where: ConsoleConfig) -> bool:
        """Whether there is a console to serve: it has a port, and somebody may sign in."""
        return where.port != 0 and (where.oidc is not None or self.path.exists())

    def role_of(self, name: str) -> str:
        """RefusedError where there is no such account, with the nearest name."""
        return self._one(self.all(), name).role

    def add(self, name: str, *, role: str, password: str) -> None:
        """RefusedError for a name that is taken or cannot be one, a role that there is not, and a password that is too short."""
        if not _NAME.fullmatch(name):
            raise RefusedError(f"account {name!r}: a name is 1 to 64 of a-z, 0-9 and ._@-, and begins with a letter or digit")
        self._check_role(role)
        made = _account(name, role, password)
        with alone(self._lock):
            known = self.all()
            if name in known:
                raise RefusedError(f"account {name}: is there already, with role {known[name].role}")
            self._keep({**known, name: made})

    def change_password(self, name: str, password: str) -> None:
        """Ends the account's sessions besides."""
        with alone(self._lock):
            known = self.all()
            self._keep({**known, name: _account(name, self._one(known, name).role, password)})

    def change_role(self, name: str, role: str) -> None:
        self._check_role(role)
        with alone(self._lock):
            known = self.all()
            self._keep({**known, name: replace(self._one(known, name), role=role, changed=_now())})

    def remove(self, name: str) -> None:
        with alone(self._lock):
            known = self.all()
            self._one(known, name)
            self._keep({other: one for other, one in known.items() if other != name})

    def verified(self, name: str, password: str) -> Account | None:
        """The account, where this is its password. It takes as long where there is none of the name."""
        one = self.all().get(name)
        try:
            Argon2id.verify_phc_encoded(password.encode(), one.hash if one else _NOBODY)
        except InvalidKey:
            return None
        return one

    @property
    def _lock(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def _one(self, known: Mapping[str, Account], name: str) -> Account:
        if name not in known:
            raise RefusedError(f"account {name}: there is none{did_you_mean(name, known)} (there are: {', '.join(known) or 'none'})")
        return known[name]

    def _check_role(self, role: str) -> None:
        if role not in self.roles:
            raise RefusedError(f"role {role!r}: there is none{did_you_mean(role, self.roles)} (there are: {', '.join(self.roles)})")

    def _keep(self, accounts: Mapping[str, Account]) -> None:
        document = [asdict(one) for _, one in sorted(accounts.items())]
        write_whole(self.path, (json.dumps(document, indent=1) + "\n").encode(), private=True)


def _account(name: str, role: str, password: str) -> Account:
    _check_password(name, password)
    hashed = _hash(password)
    return Account(name=name, role=role, hash=hashed, changed=_now())


def _hash(password: str) -> str:
    # The second choice of RFC 9106, section 4: where memory is not plentiful.
    cost = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=3, lanes=4, memory_cost=64 * 1024)
    return cost.derive_phc_encoded(password.encode())


def _check_password(name: str, password: str) -> None:
    if not SHORTEST <= len(password) <= LONGEST:
        raise RefusedError(f"account {name}: the password has {len(password)} characters; {SHORTEST} to {LONGEST} are asked")
    if name in password.casefold() and len(password) < 2 * SHORTEST:
        raise RefusedError(f"account {name}: the password holds the account's name")
    if len(set(password)) < SHORTEST // 2:
        raise RefusedError(f"account {name}: the password is made of {len(set(password))} different characters; {SHORTEST // 2} are asked")


def _now() -> str:
    return datetime.now(UTC).isoformat()


_NOBODY = _hash(secrets.token_hex(32))
"""Nobody knows its password."""
