"""The frame of a console, in a real browser and by hand-made requests: signing in, roles, forms, and what each answer bears."""

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import jinja2
import pytest
from playwright.sync_api import Page as Tab

from rainhill.console.accounts import Accounts
from rainhill.console.door import Door
from rainhill.console.frame import Act, Console, Done, Page, Shown, Visitor
from rainhill.console.sessions import IDLE_S, LONGEST_S, MOST, Sessions
from rainhill.console.throttle import Throttle
from rainhill.errors import RefusedError
from rainhill.listening import ConsoleConfig
from tests.browser import PASSWORD, PHONE, axe, browser, overflow, page, served, sign_in
from tests.server.conftest import free_port

__all__ = ["browser", "page"]

TEMPLATES = {
    "list.html.j2": """{% extends "frame.html.j2" %}{% from "parts.html.j2" import token, pill, wide %}{% block main %}
<div data-live><p id="count">{{ names | length }} names, the first {{ pill(names[0]) }}</p>
{% call wide("Names") %}<table><caption>Names</caption><thead><tr><th scope="col">Name</th></tr></thead>
<tbody>{% for name in names %}<tr><th scope="row">{{ name }}</th></tr>{% endfor %}</tbody></table>{% endcall %}</div>
<form class="card" method="post" action="/names/{{ names[0] | urlencode }}">{{ token(csrf) }}
<p><label for="next">Another</label><input id="next" name="next" required></p><p><button>Add</button></p></form>{% endblock %}"""
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A console of one list of names, which an `operator` may lengthen."""

    def __init__(self, folder: Path) -> None:
        self.names, self.clock = ["<b>first"], Clock()
        self.accounts = Accounts(path=folder / "accounts.json", roles=("viewer", "operator"))
        self.accounts.add("ada", role="operator", password=PASSWORD)
        self.accounts.add("vic", role="viewer", password=PASSWORD)
        self.console = Console(
            kind="coordinator",
            name="test",
            title="Test & co",
            config=ConsoleConfig(port=free_port()),
            folder=folder,
            accounts=self.accounts,
            templates=jinja2.DictLoader(TEMPLATES),
            pages=[
                Page(path="/", show=self.show, menu="Names"),
                Page(path="/of/{name}", show=self.show_one),
                Page(path="/secret", show=self.show, menu="Secret", roles=("operator",)),
                Page(path="/broken", show=self.broken),
            ],
            acts=[Act(path="/names/{name}", do=self.add, roles=("operator",), back="/of/{name}")],
        )
        self.door = Door(self.console, Sessions(self.clock), Throttle(self.clock))

    def show(self, visitor: Visitor, asked: Mapping[str, str]) -> Shown:
        return Shown(template="list.html.j2", title="Names", about={"names": self.names})

    def show_one(self, visitor: Visitor, asked: Mapping[str, str]) -> Shown:
        if asked["name"] not in self.names:
            raise RefusedError(f"there is no {asked['name']!r}")
        return self.show(visitor, asked)

    def broken(self, visitor: Visitor, asked: Mapping[str, str]) -> Shown:
        raise ZeroDivisionError("on purpose")

    def add(self, visitor: Visitor, form: Mapping[str, str]) -> Done:
        if form["next"] in self.names:
            raise RefusedError(f"{form['next']!r} is there already")
        self.names.append(form["next"])
        return Done(to="/", words=f"{form['next']} was added by {visitor.name}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def origin(world: World) -> Iterator[str]:
    with served(world.console, world.door) as address:
        yield address


@pytest.fixture
def client(origin: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=origin, headers={"Origin": origin}) as made:
        yield made


def enter(client: httpx.Client, name: str = "ada", password: str = PASSWORD) -> httpx.Response:
    form = {"csrf": token(client.get("/login").text), "name": name, "password": password}
    return client.post("/login", data=form)


def token(text: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found, text
    return found[1]


def test_a_person_signs_in_adds_a_name_and_signs_out(world: World, origin: str, page: Tab) -> None:
    page.goto(f"{origin}/secret?a=b")
    assert page.url == f"{origin}/login"
    page.get_by_label("Account").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{origin}/secret?a=b")
    page.get_by_label("Another").fill("<script>alert(1)</script>")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("status").get_by_text("<script>alert(1)</script> was added by ada").wait_for()
    assert world.names == ["<b>first", "<script>alert(1)</script>"]
    # Why something was not done is said where it was asked for.
    page.get_by_label("Another").fill("<b>first")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("alert").get_by_text("'<b>first' is there already").wait_for()
    assert page.url == f"{origin}/of/%3Cb%3Efirst"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{origin}/login")
    page.goto(origin)
    assert page.url == f"{origin}/login"


def test_a_page_keeps_itself_up_to_date_unless_somebody_works_in_it(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    page.get_by_text("1 names").wait_for()
    world.names.append("second")
    page.get_by_text("2 names").wait_for()
    page.get_by_role("region", name="Names").focus()
    world.names.append("third")
    page.wait_for_timeout(6000)
    assert "2 names" in page.locator("#count").inner_text()
    page.keyboard.press("Tab")
    page.get_by_text("3 names").wait_for()


def test_a_page_that_only_looks_keeps_no_session_alive(world: World, origin: str, client: httpx.Client) -> None:
    enter(client)
    for _ in range(4):
        world.clock.now += IDLE_S / 2
        answer = client.get("/", headers={"X-Rainhill-Look": "1"})
    assert answer.status_code == 401
    enter(client)
    for _ in range(4):
        world.clock.now += IDLE_S / 2
        assert client.get("/").status_code == 200
    world.clock.now += LONGEST_S - 2 * IDLE_S
    assert client.get("/").headers["location"] == "/login"


def test_every_page_is_for_everybody(origin: str, page: Tab) -> None:
    page.goto(f"{origin}/login")
    assert axe(page) == []
    sign_in(page, origin, "ada")
    assert axe(page) == []
    page.emulate_media(color_scheme="dark")
    assert axe(page) == []
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert overflow(page) == 0
    # All that can be done can be done with the keyboard alone: the first stop leads past the menu.
    page.goto(origin)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("typed was added by ada").wait_for()


def test_what_a_role_does_not_allow_is_not_done_and_said(world: World, client: httpx.Client) -> None:
    enter(client, "vic")
    text = client.get("/").text
    assert "Secret" not in text
    refused = client.post("/names/x", data={"csrf": token(text), "next": "x"})
    assert refused.status_code == 403 and "vic is viewer here, and this is for operator" in refused.text
    assert client.get("/secret").status_code == 403
    assert world.names == ["<b>first"]


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""}])
def test_a_form_of_anothers_page_is_not_taken(world: World, client: httpx.Client, headers: dict[str, str]) -> None:
    enter(client)
    csrf = token(client.get("/").text)
    assert client.post("/names/x", data={"csrf": csrf, "next": "x"}, headers=headers).status_code == 403
    assert world.names == ["<b>first"]
    assert client.post("/names/x", data={"csrf": csrf, "next": "x"}).status_code == 303
    assert world.names == ["<b>first", "x"]


@pytest.mark.parametrize("csrf", ["", "x", None])
def test_a_form_without_its_sessions_token_is_not_taken(world: World, client: httpx.Client, csrf: str | None) -> None:
    enter(client)
    form = {"next": "x"} | ({"csrf": csrf} if csrf is not None else {})
    assert client.post("/names/x", data=form).status_code == 403
    assert client.post("/logout", data=form).status_code == 303
    assert client.get("/").status_code == 200
    assert world.names == ["<b>first"]


def test_the_token_from_before_signing_in_is_worth_nothing_after(client: httpx.Client) -> None:
    client.get("/login")
    before = dict(client.cookies)
    enter(client)
    after = dict(client.cookies)
    assert before.keys() == after.keys() and before != after
    client.cookies.clear()
    client.cookies.update(before)
    assert client.get("/").headers["location"] == "/login"


def test_who_asks_for_many_pages_keeps_nobody_from_signing_in(origin: str, client: httpx.Client) -> None:
    form = {"csrf": token(client.get("/login").text), "name": "ada", "password": PASSWORD}
    with httpx.Client(base_url=origin) as stranger:
        for number in range(MOST + 5):
            stranger.cookies.clear()
            assert stranger.get(f"/{number}").status_code == 404
    assert client.post("/login", data=form).headers["location"] == "/"
    assert "names" in client.get("/").text


def test_who_lost_the_account_or_got_another_role_is_signed_out(world: World, client: httpx.Client) -> None:
    enter(client, "vic")
    assert client.get("/").status_code == 200
    world.accounts.change_role("vic", "operator")
    assert client.get("/").headers["location"] == "/login"
    enter(client, "vic")
    assert client.get("/secret").status_code == 200
    world.accounts.remove("vic")
    assert client.get("/").headers["location"] == "/login"
    enter(client, "ada")
    world.accounts.change_password("ada", "another long password")
    assert client.get("/").headers["location"] == "/login"
    assert enter(client, "ada").status_code == 401
    assert enter(client, "ada", "another long password").status_code == 303


def test_wrong_passwords_make_the_next_wait_and_tell_of_no_account(world: World, client: httpx.Client) -> None:
    texts = []
    for name in ("ada", "nobody"):
        for _ in range(5):
            answer = enter(client, name, "wrong")
            assert answer.status_code == 401
        texts.append(token_free(answer.text))
        assert "wait 1 s" in enter(client, name).text
    assert texts[0] == texts[1]
    world.clock.now += 1.1
    assert enter(client, "ada").status_code == 303


def token_free(text: str) -> str:
    return re.sub(r'value="[^"]+"', "", text)


def test_every_answer_bears_what_keeps_a_browser_from_doing_more(client: httpx.Client) -> None:
    enter(client)
    for path, status in (
        ("/", 200),
        ("/login", 303),
        ("/nowhere", 404),
        ("/of/nobody", 404),
        ("/broken", 500),
        ("/static/console.js", 200),
    ):
        answer = client.get(path)
        assert answer.status_code == status, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == ("max-age=3600" if path.startswith("/static") else "no-store")
    assert "ZeroDivisionError: the daemon's log says more" in html.unescape(client.get("/broken").text)
    assert "on purpose" not in client.get("/broken").text
    assert "there is no 'nobody'" in html.unescape(client.get("/of/nobody").text)


def test_a_cookie_is_out_of_reach_of_scripts_and_of_other_sites(client: httpx.Client) -> None:
    cookie = client.get("/login").headers["set-cookie"]
    assert cookie.startswith("rainhill-coordinator-test=") and "HttpOnly" in cookie and "SameSite=lax" in cookie


def test_a_name_that_leads_here_and_is_not_the_consoles_is_not_answered(client: httpx.Client, origin: str) -> None:
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", "", origin.removeprefix("http://") + ".evil.example"):
        assert client.get("/login", headers={"Host": host}).status_code == 421, host
    assert client.get("/login", headers={"Host": f"localhost:{origin.rpartition(':')[2]}"}).status_code == 200


def test_what_is_no_form_is_refused_by_name(client: httpx.Client) -> None:
    enter(client)
    assert client.post("/names/x", content=b"a" * 70_000).status_code == 413
    assert client.post("/names/x", content=iter([b"a=b"])).status_code == 413
    assert client.post("/names/x", content=b"\xff\xfe").status_code == 400
    assert client.post("/names/x", content=b"&".join(b"a=b" for _ in range(200))).status_code == 400
    assert client.request("DELETE", "/").status_code == 405
    assert client.get("/static/..%2Fapp.py").status_code == 404


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example"])
def test_nobody_is_led_elsewhere_by_signing_in(client: httpx.Client, path: str) -> None:
    client.get(path)
    assert enter(client).headers["location"] == "/"
