"""A console as a web application: server-rendered pages, and forms that answer with another page (post, redirect, get)."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import rainhill
from rainhill.console.door import LOOK, Door, Known, inside
from rainhill.console.frame import Act, Console, Page, Visitor
from rainhill.console.guarded import Guarded
from rainhill.console.oidc import Elsewhere, NotLetInError
from rainhill.errors import RainhillError, RefusedError

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
Answer = Callable[[Request], Awaitable[Response]]


def app_of(console: Console, door: Door | None = None) -> ASGIApp:
    frame = Frame(console, door or Door(console))
    routes = [
        *(Route(page.path, frame.whole(frame.page(page)), methods=["GET"]) for page in console.pages),
        *(Route(act.path, frame.whole(frame.act(act)), methods=["POST"]) for act in console.acts),
        Route("/login", frame.login, methods=["GET", "POST"]),
        Route("/logout", frame.logout, methods=["POST"]),
        Route("/login/elsewhere", frame.elsewhere, methods=["GET"]),
        Route("/login/back", frame.back, methods=["GET"]),
        Route("/static/{name}", _static, methods=["GET"]),
    ]
    # Around all of it, and no middleware: what Starlette itself may say of an error passes none.
    return Guarded(Starlette(routes=routes, exception_handlers={HTTPException: frame.no_page}), origin=console.config.origin)


class Frame:
    """The pages of a console, as a browser asks for them."""

    def __init__(self, console: Console, door: Door) -> None:
        self._console, self._door = console, door
        self._elsewhere = Elsewhere(console) if console.config.oidc else None
        loader = jinja2.ChoiceLoader([console.templates, jinja2.FileSystemLoader(HERE / "templates")])
        self._templates = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.globals |= {"version": rainhill.__version__, "console": console}

    def page(self, page: Page) -> Answer:
        async def answer(request: Request) -> Response:
            known = self._door.known(request)
            if known.visitor is None:
                return self._to_login(known, request)
            if page.roles and known.visitor.role not in page.roles:
                return self._problem(known, HTTPStatus.FORBIDDEN, _not_for(known.visitor, page.roles))
            asked = {**request.query_params, **request.path_params}
            try:
                shown = await run_in_threadpool(page.show, known.visitor, asked)
            except RefusedError as error:
                return self._problem(known, HTTPStatus.NOT_FOUND, str(error))
            except (RainhillError, OSError) as error:
                return self._problem(known, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return self._rendered(known, shown.template, {**shown.about, "title": shown.title, "here": page.path})

        return answer

    def act(self, act: Act) -> Answer:
        async def answer(request: Request) -> Response:
            known, form = self._door.known(request), await _form(request)
            if known.visitor is None:
                return self._to_login(known, request)
            if not known.session.own(form.get("csrf", "")):
                return self._problem(known, HTTPStatus.FORBIDDEN, "This form is of another session: load its page again.")
            if known.visitor.role not in act.roles:
                return self._problem(known, HTTPStatus.FORBIDDEN, _not_for(known.visitor, act.roles))
            params = {key: str(value) for key, value in request.path_params.items()}
            try:
                done = await run_in_threadpool(act.do, known.visitor, {**form, **params})
            except (RainhillError, OSError) as error:
                known.session.said.append(("failed", str(error)))
                return self._to(known, act.back.format_map({key: quote(value, safe="") for key, value in params.items()}))
            log.info("%s %s: %s", known.visitor.role, known.visitor.name, done.words)
            known.session.said.append(("done", done.words))
            return self._to(known, done.to)

        return answer

    async def login(self, request: Request) -> Response:
        known = self._door.known(request)
        if request.method == "GET":
            return self._to(known, "/") if known.visitor else self._login(known, "")
        form = await _form(request)
        if not known.session.own(form.get("csrf", "")):
            return self._login(known, "This page was too old: try again.", HTTPStatus.FORBIDDEN)
        name = form.get("name", "").strip()
        words = await run_in_threadpool(self._door.sign_in, name, form.get("password", ""))
        if words:
            # No name: passwords are typed in its place.
            log.warning("%s was not let in with an account's name and a password", request.client.host if request.client else "somebody")
            return self._login(known, words, HTTPStatus.UNAUTHORIZED)
        return self._let_in(known, name)

    async def logout(self, request: Request) -> Response:
        known, form = self._door.known(request), await _form(request)
        if known.visitor and known.session.own(form.get("csrf", "")):
            self._door.sessions.end(known.token)
        return RedirectResponse("/login", HTTPStatus.SEE_OTHER)

    async def elsewhere(self, request: Request) -> Response:
        """To where people sign in with the house's own account."""
        known = self._door.known(request)
        if self._elsewhere is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        try:
            there = await self._elsewhere.begin(known.session.notes)
        except NotLetInError as error:
            return self._login(known, str(error), HTTPStatus.BAD_GATEWAY)
        return self._to(known, there)

    async def back(self, request: Request) -> Response:
        known = self._door.known(request)
        if self._elsewhere is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        try:
            visitor = await self._elsewhere.end(known.session.notes, request.query_params)
        except NotLetInError as error:
            log.warning("somebody was not let in with an account from elsewhere: %s", error)
            return self._login(known, str(error), HTTPStatus.UNAUTHORIZED)
        return self._let_in(known, visitor.name, visitor.role)

    async def no_page(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = "There is no such page." if error.status_code == HTTPStatus.NOT_FOUND else error.detail
        return self._problem(self._door.known(request), HTTPStatus(error.status_code), words)

    def whole(self, answer: Answer) -> Answer:
        """The same, and a page where it breaks: of what went wrong the log tells, and not the browser."""

        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except HTTPException:
                raise
            except Exception as error:
                log.exception("a page broke: %s", request.url.path)
                words = f"{type(error).__name__}: the daemon's log says more."
                return self._problem(self._door.known(request), HTTPStatus.INTERNAL_SERVER_ERROR, words)

        return told

    def _let_in(self, known: Known, name: str, role: str = "") -> Response:
        entered = self._door.let_in(known, name, role)
        log.info("%s signed in", name)
        return self._to(entered, entered.session.after)

    def _to_login(self, known: Known, request: Request) -> Response:
        if LOOK in request.headers:
            return Response(status_code=HTTPStatus.UNAUTHORIZED)
        if request.method == "GET":
            known.session.after = inside(request.url.path, request.query_params)
        return self._to(known, "/login")

    def _to(self, known: Known, path: str) -> Response:
        return self._door.mark(known, RedirectResponse(path, HTTPStatus.SEE_OTHER))

    def _login(self, known: Known, words: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
        about = {"title": "Sign in", "problem": words, "local": bool(self._console.accounts.all()), "oidc": self._console.config.oidc}
        return self._rendered(known, "login.html.j2", about, status)

    def _problem(self, known: Known, status: HTTPStatus, words: str) -> Response:
        return self._rendered(known, "problem.html.j2", {"title": status.phrase, "words": words}, status)

    def _rendered(self, known: Known, template: str, about: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
        said, known.session.said = known.session.said, []
        visitor = known.visitor
        menu = [page for page in self._console.pages if page.menu and visitor and (not page.roles or visitor.role in page.roles)]
        frame = {"visitor": visitor, "csrf": known.session.csrf, "said": said, "menu": menu, "here": ""}
        page = self._templates.get_template(template).render({**frame, **about})
        return self._door.mark(known, HTMLResponse(page, status))


async def _form(request: Request) -> dict[str, str]:
    """Of an application/x-www-form-urlencoded body; the last of two fields of a name."""
    body = await request.body()
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=100))
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from error


async def _static(request: Request) -> Response:
    path = HERE / "static" / request.path_params["name"]
    # Only what lies there: a name with a slash is no part of a route's {name}.
    if path not in {*(HERE / "static").iterdir()}:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return FileResponse(path, headers={"Cache-Control": "max-age=3600"})


def _not_for(visitor: Visitor, roles: object) -> str:
    wanted = " or ".join(roles) if isinstance(roles, list | tuple) else str(roles)
    return f"{visitor.name} is {visitor.role} here, and this is for {wanted}."
