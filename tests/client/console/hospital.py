"""A hospital with a past: a run that came to its end, one that is held, some that wait; all of it by its daemon's own desk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from client.console.accounts import accounts_of
from client.desk import Desk, desk_of
from client.home import SiteHome
from client.offers import Offers
from client.workshop import Workshop
from rainhill.messages import Receipt, Update, Waiting
from tests.browser import PASSWORD
from tests.client.hospital import Asks, asks, join, offers, rewrite
from tests.server.conftest import free_port

EXTRA = """[privacy]
epsilon = 8
noise = "simulated"
declared_patients = 20
[policy]
hold = false
max_update_norm = 10
[console]
port = {port}
"""
PEOPLE = {"grace": "governance", "vic": "viewer", "ada": "admin"}


class World:
    def __init__(self, folder: Path, base: Path, digest: str, text: Callable[..., str]) -> None:
        self.file = join(folder, base, digest, extra=EXTRA.format(port=free_port()))
        self.home = SiteHome.open(self.file)
        self._folder, self._text = folder, text
        for name, role in PEOPLE.items():
            accounts_of(self.home).add(name, role=role, password=PASSWORD)
        # What is held against one another has one name.
        self.spring, self.summer = self.asks("spring", 3.0), self.asks("summer", 2.0)
        self._spring()
        self._summer()
        self.take("autumn", self.asks("autumn", 2.5))
        self.take("winter", self.asks("winter", 2.5, 'title = "<b>Winter</b>"'))
        self.take("greedy", self.asks("greedy", 50.0))

    @property
    def offers(self) -> Offers:
        return offers(self.file)

    def asks(self, name: str, epsilon: float, title: str = "") -> Asks:
        folder = self._folder / f"recipe-{name}"
        folder.mkdir()
        text = self._text(rule="alternating") + f"[privacy]\nepsilon = {epsilon}\n"
        return asks(text.replace('title = "A small world"', title) if title else text, folder)

    def take(self, run: str, asked: Asks) -> None:
        self.offers.take(asked.sealed(run))

    def desk(self) -> Desk:
        workshop = Workshop(self.home)
        return desk_of(self.home, workshop.answer, workshop.outcome)

    def _spring(self) -> None:
        self.take("spring", self.spring)
        self.offers.approve("spring", by="grace")
        desk = self.desk()
        for number in (1, 2):
            assert isinstance(desk.answer(self.spring.plan(number)), Update)
        assert isinstance(desk.answer(replace(self.spring.plan(2), round=3)), Receipt)
        desk.results.settle()

    def _summer(self) -> None:
        rewrite(self.file, "hold = false", "hold = true")
        self.take("summer", self.summer)
        self.offers.approve("summer", by="grace", repeats=1)
        # The coordinator lost its own plan of the round, and asks with another: two updates are held.
        for seed in (0, 1):
            assert isinstance(self.desk().answer(self.summer.plan(2, run="summer", seed=seed)), Waiting)
