"""Signing in with an account from elsewhere, against a real OpenID provider on this machine."""

import base64
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jinja2
import pytest
from joserfc import jwk, jwt
from playwright.sync_api import Page as Tab

from rainhill.console.accounts import Accounts
from rainhill.console.frame import Console, Page, Shown
from rainhill.console.oidc import Elsewhere
from rainhill.errors import ConfigError, CredentialError
from rainhill.files import write_whole
from rainhill.listening import ConsoleConfig, OidcConfig
from rainhill.toml import parse
from tests.browser import browser, page, served
from tests.server.conftest import free_port
from tests.sites.peers import until

__all__ = ["browser", "page"]

GROUPS = {"rainhill-operators": "operator", "rainhill": "viewer"}
TEMPLATE = '{% extends "frame.html.j2" %}{% block main %}<p>here</p>{% endblock %}'


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The issuer's URL. Everybody has an account there."""
    at = free_port()
    command = [str(Path(sys.executable).parent / "oidc-provider-mock"), "--port", str(at), "--require-nonce", "true"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        issuer = f"http://localhost:{at}"
        try:
            assert until(lambda: answers(issuer))
            yield issuer
        finally:
            process.terminate()


def answers(issuer: str) -> bool:
    try:
        return httpx.get(f"{issuer}/.well-known/openid-configuration").is_success
    except httpx.HTTPError:
        return False


def console_of(folder: Path, issuer: str, **how: Any) -> Console:
    about = {"issuer": issuer, "client_id": "rainhill", "client_secret": "secret", "name_claim": "sub", "roles": GROUPS}
    oidc = OidcConfig(**{**about, "label": "the Trust's account", **how})
    write_whole(folder / "secret", b"hush\n", private=True)
    return Console(
        kind="coordinator",
        name="test",
        title="Test",
        config=ConsoleConfig(port=free_port(), oidc=oidc),
        folder=folder,
        accounts=Accounts(path=folder / "accounts.json", roles=("viewer", "operator")),
        templates=jinja2.DictLoader({"here.html.j2": TEMPLATE}),
        pages=[Page(path="/", show=lambda visitor, asked: Shown(template="here.html.j2", title=f"{visitor.name} is {visitor.role}"))],
        acts=[],
    )


def known_as(provider: str, sub: str, **claims: object) -> None:
    httpx.put(f"{provider}/users/{sub}", json=claims).raise_for_status()


def test_a_person_of_a_group_is_let_in_with_its_role(tmp_path: Path, provider: str, page: Tab) -> None:
    known_as(provider, "grace", groups=["staff", "rainhill", "rainhill-operators"])
    with served(console_of(tmp_path, provider)) as origin:
        page.goto(origin)
        page.get_by_role("link", name="Sign in with the Trust's account").click()
        page.locator("input[name=sub]").fill("grace")
        page.get_by_role("button", name="Authorize").click()
        page.get_by_role("heading", name="grace is operator").wait_for()
        assert page.url == f"{origin}/"
    page.errors.clear()  # type: ignore[attr-defined]  # the provider's own page wants a style sheet from afar


def test_who_is_in_no_group_is_told_so(tmp_path: Path, provider: str, page: Tab) -> None:
    known_as(provider, "mallory", groups=["staff"])
    with served(console_of(tmp_path, provider)) as origin:
        page.goto(f"{origin}/login/elsewhere")
        page.locator("input[name=sub]").fill("mallory")
        page.get_by_role("button", name="Authorize").click()
        page.get_by_text("mallory is in none of the groups that are let in here: rainhill-operators, rainhill").wait_for()
        page.goto(origin)
        assert page.url == f"{origin}/login"
    page.errors.clear()  # type: ignore[attr-defined]  # the browser notes each 401


def test_an_answer_to_no_question_of_this_browser_is_not_taken(tmp_path: Path, provider: str) -> None:
    with served(console_of(tmp_path, provider)) as origin, httpx.Client(base_url=origin) as client:
        assert client.get("/login/back?state=x&code=y").status_code == 401
        there = client.get("/login/elsewhere").headers["location"]
        asked = parse_qs(urlsplit(there).query)
        assert asked["code_challenge_method"] == ["S256"] and asked["redirect_uri"] == [f"{origin}/login/back"]
        wrong = client.get("/login/back?state=x&code=y")
        # A question is good for one answer, right or wrong.
        late = client.get(f"/login/back?state={asked['state'][0]}&code=y")
        assert (wrong.status_code, late.status_code) == (401, 401)
        assert "answer is to no question" in wrong.text and "answer is to no question" in late.text


def test_who_is_turned_away_there_is_told_so(tmp_path: Path, provider: str) -> None:
    with served(console_of(tmp_path, provider)) as origin, httpx.Client(base_url=origin) as client:
        asked = parse_qs(urlsplit(client.get("/login/elsewhere").headers["location"]).query)
        denied = client.get(f"/login/back?state={asked['state'][0]}&error=access_denied&error_description=not+today")
        asked = parse_qs(urlsplit(client.get("/login/elsewhere").headers["location"]).query)
        wrong = client.get(f"/login/back?state={asked['state'][0]}&code=guessed")
    assert (denied.status_code, wrong.status_code) == (401, 401)
    assert "the Trust&#39;s account did not let you in: not today" in denied.text
    assert "gives no token: 400" in wrong.text


def test_an_issuer_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with served(console_of(tmp_path, f"http://localhost:{free_port()}")) as origin:
        answer = httpx.get(f"{origin}/login/elsewhere")
    assert answer.status_code == 502 and "cannot be asked who you are" in answer.text


KEY = jwk.RSAKey.generate_key(2048, {"kid": "one"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "one"})


def token(key: jwk.RSAKey = KEY, alg: str = "RS256", **changes: object) -> str:
    claims = {"iss": "http://localhost:1", "aud": "rainhill", "exp": int(time.time()) + 60, "nonce": "n", "sub": "grace", **changes}
    return jwt.encode({"alg": alg, "kid": "one"}, {name: value for name, value in claims.items() if value is not None}, key)


def test_a_token_that_holds_is_taken(tmp_path: Path) -> None:
    assert claims_of(tmp_path, token())["sub"] == "grace"


def claims_of(folder: Path, text: str) -> dict[str, Any]:
    elsewhere = Elsewhere(console_of(folder, "http://localhost:1"))
    return elsewhere._claims(text, "http://localhost:1", "n", jwk.KeySet([KEY]))


def by_the_public_key() -> str:
    """Signed with what everybody knows, as if it were a secret. RFC 8725, section 2.1."""
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in ({"alg": "HS256", "kid": "one"}, {"sub": "grace"})]
    signature = hmac.digest(KEY.as_pem(private=False), b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    "forged",
    [
        lambda: token(OTHER),
        lambda: token(iss="http://localhost:2"),
        lambda: token(aud="another"),
        lambda: token(aud=["rainhill", "another"], azp="another"),
        lambda: token(exp=int(time.time()) - 3600),
        lambda: token(exp=None),
        lambda: token(nonce="m"),
        lambda: token(nonce=None),
        lambda: by_the_public_key(),
        lambda: "e30.e30.",
        lambda: "",
    ],
    ids=["key", "issuer", "audience", "party", "expired", "forever", "nonce", "no nonce", "HS256 by the public key", "unsigned", "none"],
)
def test_a_token_that_does_not_hold_lets_nobody_in(tmp_path: Path, forged: Callable[[], str]) -> None:
    from rainhill.console.oidc import NotLetInError

    with pytest.raises(NotLetInError):
        claims_of(tmp_path, forged())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://login.example"}, "beyond this machine it is asked by https only"),
        ({"scopes": ["profile"]}, "openid is missing"),
        ({"roles": {}}, "names no group"),
    ],
)
def test_settings_that_would_let_in_nobody_or_anybody_are_refused(changes: dict[str, Any], words: str) -> None:
    about = {"issuer": "https://login.example", "client_id": "rainhill", "roles": GROUPS, **changes}
    with pytest.raises(ConfigError, match=words):
        parse({"port": 1, "oidc": about}, ConsoleConfig, origin="test")


def test_a_group_with_a_role_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="'rainhill' is to be 'king', and there are viewer, operator"):
        Elsewhere(console_of(tmp_path, "http://localhost:1", roles={"rainhill": "king"}))


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"bind": "0.0.0.0"}, "certificate and key are needed"),
        ({"certificate": "a.pem"}, "one is given without the other"),
        ({"url": "http://console.example"}, "by https only"),
        ({"url": "https://console.example/path"}, "url = "),
    ],
)
def test_passwords_cross_no_network_in_clear(about: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse({"port": 1, **about}, ConsoleConfig, origin="test")


def test_a_console_behind_a_proxy_answers_by_the_proxys_name(tmp_path: Path) -> None:
    behind = ConsoleConfig(port=1, url="https://console.example")
    assert behind.origin == "https://console.example"
    assert ConsoleConfig(port=8, bind="::1").origin == "http://[::1]:8"
