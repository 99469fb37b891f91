"""A gigabyte in either direction, between real daemons: refused, by name, without the memory of who is sent it growing by it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from client.flower.app import at_work
from client.flower.live import live_app
from client.home import SiteHome
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.messages import Plan, Receipt, Update
from rainhill.offer import FRAME, opened_offer
from rainhill.standing import Standing, sealed_standing
from server.asking import new_offer
from server.database import Database
from server.flower.link import admit_only, opened_grid
from server.home import Home
from server.registry import Registry
from server.runs import Runs
from server.serve import link_of
from tests.server.offers import adapter, recipe
from tests.server.peers import Coordinator, node
from tests.sites.peers import Consortium, until

LARGE = 10**9
"""Bytes."""
MIB = 2**20
LONG_S = 240.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Bury's daemon runs; Oldham has keys, and the test speaks for it."""
    one = Consortium(tmp_path_factory.mktemp("large"), ["bury", "oldham"])
    for site, folder in one.folders.items():
        folder.mkdir()
        (folder / f"{site}.toml").write_text(f'name = "{site}"\n')
    one.begin()
    for site in one.sites:
        one.join(site)
    try:
        one.serve("hub", "bury")
        assert until(lambda: "connected to" in (one.folders["bury"] / "serve.log").read_text(), LONG_S), one.log()
        yield one
    finally:
        one.end()


def noise() -> bytes:
    # No two pieces alike: Flower carries what is the same once.
    return np.random.default_rng(0).bytes(LARGE)


def most_held(process: int) -> int:
    """Bytes of memory that it had at its height."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def process_of(world: Consortium, name: str) -> int:
    return int(re.findall(rf"{name} runs as process (\d+)", (world.hub / "serve.log").read_text())[-1])


def test_a_site_takes_no_gigabyte_from_its_coordinator_and_goes_on(world: Consortium) -> None:
    home = Home.open(world.hub / "coordinator")
    registry = Registry(database=Database.open(home.database_url))
    nodes = admit_only(link_of(home), {name: site.node_key.encode() for name, site in registry.active().items()})
    daemon, log = world.running["bury"].pid, world.folders["bury"] / "serve.log"
    before = most_held(daemon)
    with opened_grid(link_of(home)) as grid:
        grid.push_messages([Message(wire.to_record(noise()), dst_node_id=nodes["bury"], message_type="train", ttl=LONG_S)])
        assert until(lambda: "a message was dropped" in log.read_text(), LONG_S), world.log()
    assert f"a message was dropped: a message of more than {FRAME} bytes, which no run that was offered here can want" in log.read_text()
    assert most_held(daemon) - before < 128 * MIB
    assert world.running["bury"].poll() is None and "Traceback" not in log.read_text()
    assert '"connected": true' in world.site("bury", "status", "--json").stdout


class Loud:
    """Oldham: answers its first plan with a gigabyte, and the others as it should."""

    def __init__(self, home: SiteHome) -> None:
        self.identity, self.public = home.identity(), bytes.fromhex(home.bundle().consortium_key)
        self.sent = 0
        well = at_work(live_app("oldham", self.answer, stand=self.stand, signing=self.identity.signing, consortium=self.public))

        def work(message: Message) -> Message:
            if message.metadata.message_type == "train" and not self.sent:
                self.sent += 1
                return Message(wire.to_record(noise()), reply_to=message)
            return well(message)

        self.work = work

    def stand(self, sealed: bytes, number: int, nonce: bytes) -> bytes:
        offer = opened_offer(sealed, consortium="north_west", public=self.public)
        said = Standing(site="oldham", run=offer.run, offer=offer.sha256, state="approved", reason="", nonce=nonce.hex())
        return sealed_standing(said, self.identity.signing)

    def answer(self, plan: Plan) -> Update | Receipt:
        if plan.round > 2:
            return Receipt(run=plan.run, round=plan.round, site="oldham", adapter=plan.adapter.fingerprint())
        delta = Adapter({name: np.ones_like(array) for name, array in plan.adapter.items()})
        return Update(run=plan.run, round=plan.round, site="oldham", delta=delta, patients=5, steps=4, loss=0.5)


def test_a_coordinator_takes_no_gigabyte_from_a_site_and_its_run_goes_on(world: Consortium) -> None:
    home = Home.open(world.hub / "coordinator")
    database = Database.open(home.database_url)
    registry, runs = Registry(database=database), Runs(database=database)
    one = recipe(rounds={"count": 2, "steps": 4, "deadline_s": LONG_S})
    offered, sealed = new_offer(home, registry, one, adapter=adapter(), run="spring", sites=["oldham"], days=7, by="ada")
    runs.offer(offered, sealed, by="ada")
    site = Loud(SiteHome.open(world.folders["oldham"] / "oldham.toml"))
    told: set[str] = set()
    held = {"SuperLink": 0, "run spring": 0}

    def over() -> bool:
        status = runs.run("spring")
        told.add(status.words)
        if site.sent:
            held.update({name: most_held(process_of(world, name)) for name in held})
        return status.state == "finished"

    superlink = most_held(process_of(world, "SuperLink"))
    stop_at = Coordinator.__new__(Coordinator)
    stop_at.home = home
    with node(stop_at, site.identity, site.work):
        assert until(over, LONG_S), world.log()
    (words,) = [one for one in told if "is larger than any that the run can want" in one]
    assert words.startswith("round 1: 0 of 1 sites gave an update, the quorum is 1 (oldham: its answer is larger")
    log = (world.hub / "serve.log").read_text()
    assert f"has more than {offered.room} bytes: it is not taken" in log and "Traceback" not in log
    assert held["run spring"] < 512 * MIB and held["SuperLink"] - superlink < 256 * MIB, (held, superlink)
    assert [record.answered for record in runs.rounds("spring")] == [("oldham",), ("oldham",)]
