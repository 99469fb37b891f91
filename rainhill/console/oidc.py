"""Signing in with an account from elsewhere. OpenID Connect Core 1.0, section 3.1, with PKCE (RFC 7636)."""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from rainhill.console.frame import Console, Visitor
from rainhill.errors import CredentialError
from rainhill.files import read_private
from rainhill.listening import OidcConfig
from rainhill.text import one_line

WITHIN_S, KEPT_S, LEEWAY_S = 10.0, 3600.0, 60
"""For the issuer to answer; so long its own document and keys are kept; and for clocks that differ."""
# RFC 8725, section 3.1: what a token may be signed with is not for the token to say.
_SIGNED_WITH = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LONGEST = 200
_STATE, _NONCE, _VERIFIER = "oidc-state", "oidc-nonce", "oidc-verifier"


class NotLetInError(Exception):
    """Why somebody is not let in, for that person to read."""


class Elsewhere:
    def __init__(self, console: Console) -> None:
        assert console.config.oidc is not None
        self._config: OidcConfig = console.config.oidc
        self._folder, self._back = console.folder, f"{console.config.origin}/login/back"
        self._roles = console.accounts.roles
        for group, role in self._config.roles.items():
            if role not in self._roles:
                raise CredentialError(f"[console.oidc] roles: {group!r} is to be {role!r}, and there are {', '.join(self._roles)}")
        self._about: tuple[float, dict[str, Any], jwk.KeySet] | None = None

    async def begin(self, notes: dict[str, str]) -> str:
        """The URL to send the browser to; what its answer is held against goes into `notes`. NotLetInError where there is no issuer."""
        about, _ = await self._issuer()
        notes |= {key: secrets.token_urlsafe(32) for key in (_STATE, _NONCE, _VERIFIER)}
        digest = hashlib.sha256(notes[_VERIFIER].encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": self._back,
            "scope": " ".join(self._config.scopes),
            "state": notes[_STATE],
            "nonce": notes[_NONCE],
            "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return str(httpx.URL(about["authorization_endpoint"]).copy_merge_params(asked))

    async def end(self, notes: dict[str, str], answer: Mapping[str, str]) -> Visitor:
        """Who that is, by what the browser brought back. `notes` are good for one try."""
        state, nonce, verifier = (notes.pop(key, "") for key in (_STATE, _NONCE, _VERIFIER))
        if not state or not hmac.compare_digest(state.encode(), answer.get("state", "").encode()):
            raise NotLetInError("This answer is to no question of this session: sign in once more.")
        if "code" not in answer:
            words = one_line(answer.get("error_description") or answer.get("error") or "it says nothing", _LONGEST)
            raise NotLetInError(f"{self._config.label} did not let you in: {words}")
        about, keys = await self._issuer()
        # RFC 9207: an answer of another issuer's.
        if answer.get("iss", about["issuer"]) != about["issuer"]:
            raise NotLetInError(f"The answer is of {one_line(answer['iss'], _LONGEST)!r}, and asked was {about['issuer']!r}.")
        return self._visitor(self._claims(await self._token(about, answer["code"], verifier), about["issuer"], nonce, keys))

    async def _token(self, about: Mapping[str, Any], code: str, verifier: str) -> str:
        """The ID token that the issuer gives for this code."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._back, "code_verifier": verifier}
        who, secret = self._config.client_id, self._config.client_secret
        try:
            # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
            held = secret and quote(read_private(self._folder / secret.expanduser()).decode().strip(), safe="")
            async with httpx.AsyncClient(timeout=WITHIN_S) as client:
                known = httpx.BasicAuth(quote(who, safe=""), held) if held else httpx.USE_CLIENT_DEFAULT
                answer = await client.post(about["token_endpoint"], data=form if held else {**form, "client_id": who}, auth=known)
            said = answer.json()
        except (httpx.HTTPError, CredentialError, ValueError) as error:
            raise NotLetInError(f"{about['issuer']} gives no token: {one_line(str(error), _LONGEST)}") from error
        if answer.is_error or not isinstance(said, dict) or "id_token" not in said:
            raise NotLetInError(f"{about['issuer']} gives no token: {answer.status_code}: {one_line(str(said), _LONGEST)}")
        return str(said["id_token"])

    def _claims(self, token: str, issuer: str, nonce: str, keys: jwk.KeySet) -> dict[str, Any]:
        registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._config.client_id},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = jwt.decode(token, keys, algorithms=_SIGNED_WITH).claims
            registry.validate(claims)
        except (JoseError, ValueError) as error:
            raise NotLetInError(f"{issuer} gives a token that does not hold: {one_line(str(error), _LONGEST)}") from error
        # OpenID Connect Core 1.0, 3.1.3.7: a token for several is for whom `azp` names.
        if claims.get("azp", self._config.client_id) != self._config.client_id:
            other = one_line(str(claims["azp"]), _LONGEST)
            raise NotLetInError(f"{issuer} gives a token for {other!r}, not for {self._config.client_id!r}.")
        return dict(claims)

    def _visitor(self, claims: Mapping[str, Any]) -> Visitor:
        name, groups = claims.get(self._config.name_claim), claims.get(self._config.role_claim, ())
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _LONGEST:
            raise NotLetInError(f"Your account's {self._config.name_claim!r} is no name: {one_line(repr(name), _LONGEST)}.")
        held = {groups} if isinstance(groups, str) else {str(one) for one in groups or ()}
        for group, role in self._config.roles.items():
            if group in held:
                return Visitor(name=name, role=role)
        raise NotLetInError(f"{name} is in none of the groups that are let in here: {', '.join(self._config.roles)}.")

    async def _issuer(self) -> tuple[dict[str, Any], jwk.KeySet]:
        """What the issuer says of itself, and the keys that it signs with. OpenID Connect Discovery 1.0, section 4."""
        if self._about is None or time.monotonic() - self._about[0] > KEPT_S:
            issuer = self._config.issuer
            try:
                async with httpx.AsyncClient(timeout=WITHIN_S) as client:
                    about = (await client.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")).raise_for_status().json()
                    keys = jwk.KeySet.import_key_set((await client.get(about["jwks_uri"])).raise_for_status().json())
                if about["issuer"].rstrip("/") != issuer.rstrip("/"):
                    raise NotLetInError(f"{issuer} says that it is {one_line(str(about['issuer']), _LONGEST)!r}.")
                _ = about["authorization_endpoint"], about["token_endpoint"]
            except (httpx.HTTPError, JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise NotLetInError(f"{issuer} cannot be asked who you are: {one_line(str(error), _LONGEST)}") from error
            self._about = time.monotonic(), about, keys
        return self._about[1], self._about[2]
