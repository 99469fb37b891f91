"""All that crosses between hospitals and their coordinator in a private run, seen in clear: nothing of the hospitals' own is in it."""

import base64
import gzip
import hashlib
import signal
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from client.data.pixels import read_image
from client.flower.line import Contact, Line, Where
from client.flower.node import BUSY_S
from client.home import SiteHome
from client.journal import Journal, Left
from client.workbench import open_bench
from perf._canaries import Canaries, Found
from perf._cost import STAMP, costs_of
from perf._fleet import calls_of, carried
from perf._tap import Tap
from perf._watched import Watched, watched
from perf.traffic import crossed, searched
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.compression import Encoding
from rainhill.messages import Update
from rainhill.stamp import ANSWER, stamped
from sites.rehearsal import RUN
from tests.sites.phantoms import small
from tests.sites.test_rehearsal import SITES, SMALL

KINDS = (
    "DICOM headers",
    "cached arrays",
    "decoded pixels",
    "manifest",
    "names of files",
    "noise keys",
    "private keys",
    "pseudonym key",
    "pseudonyms",
    "stored pixels",
)
ROOT = Path(__file__).parents[2]
NAME = b"Grimsdyke^BUR000003"
"""Of a patient who is on film."""
CUT = 4096
"""Bytes of a call that was begun and not ended."""
ROUNDS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run of two hospitals that is over, with its daemons still there."""
    folder = tmp_path_factory.mktemp("traffic")
    recipe = folder / "rehearsal.toml"
    recipe.write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAINHILL_CACHE", str(folder / "cache"))
        with watched(folder / "out", recipe, small(folder / "sites")) as rehearsal:
            rehearsal.prepare()
            rehearsal.to_the_end()
            yield rehearsal


@pytest.fixture(scope="module")
def looked(run: Watched) -> dict[str, tuple[Canaries, list[Found]]]:
    return {site: searched(run.folder / site / f"{site}.toml", run.taps[site], run.noise_keys[site]) for site in SITES}


Leak = Callable[[bytes], list[tuple[str, bytes]]]


@contextmanager
def node_through(run: Watched, url: str, ca: Path) -> Iterator[Callable[[bytes], None]]:
    """Has bury's node, with its keys, send bytes as a part of a message, through a proxy."""
    home = home_of(run, "bury")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", url)
        where = Where(address=home.address, trusted=ca.read_bytes(), key=home.identity().node)
        line = Line(where, stop=run.over, contact=Contact(), memory=None)

    def send(content: bytes) -> None:
        from flwr.proto.message_pb2 import PushObjectRequest

        # No run knows of it, and the coordinator may well say so: it has crossed by then.
        with suppress(httpx.HTTPStatusError):
            line.client.PushObject(PushObjectRequest(object_id="0" * 64, object_content=content))

    yield send
    line.client.close()


@pytest.fixture
def leak(run: Watched, tmp_path: Path) -> Iterator[Leak]:
    """Has bury's node send it, and gives what crossed."""
    with Tap(tmp_path / "tap", trusted=home_of(run, "bury").ca).open() as tap, node_through(run, tap.url, tap.ca) as send:

        def sent(content: bytes) -> list[tuple[str, bytes]]:
            send(content)
            return crossed(tap)

        yield sent


def home_of(run: Watched, site: str) -> SiteHome:
    return SiteHome.open(run.folder / site / f"{site}.toml")


@pytest.mark.parametrize("site", SITES)
def test_nothing_that_belongs_to_a_hospital_is_in_what_crossed(looked, site: str) -> None:
    canaries, found = looked[site]
    assert tuple(sorted(canaries.kinds())) == KINDS
    assert found == []


@pytest.mark.parametrize("site", SITES)
def test_what_was_searched_is_all_that_left(run: Watched, site: str) -> None:
    """By the site's own journal, and the two sides of the proxy."""
    tap = run.taps[site]
    calls = [call for one in tap.connections for call in calls_of(one)]
    answers = {hashlib.sha256(one.blob[STAMP:]).hexdigest() for one in carried(calls) if one.way == "up" and one.kind == "train"}
    left = [event.update for event in Journal.open(home_of(run, site).state, site=site).events() if isinstance(event, Left)]
    assert len(left) == ROUNDS
    assert set(left) <= answers
    for one in tap.connections:
        # The last call may have been cut when its daemon was ended.
        assert 0 <= len(one.said("up")) - sum(call.size("up") for call in calls_of(one)) < CUT
        assert len(one.crossed("up")) > len(one.said("up"))


def test_words_that_were_planted_are_looked_for(run: Watched, looked) -> None:
    canaries, _ = looked["bury"]
    assert any(b"grimsdyke^bur" in value for value in canaries.of_kind("DICOM headers"))
    assert any(b"wensley bakehouse" in value for value in canaries.of_kind("DICOM headers"))
    assert b"beside the vermilion" in canaries.of_kind("manifest")
    assert any(b"dr thistlewhit at" in value for value in canaries.of_kind("manifest"))
    assert home_of(run, "bury").pseudonym_key()[:16] in canaries.of_kind("pseudonym key")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_does_leave_is_found(leak: Leak, looked, kind: str) -> None:
    canaries, _ = looked["bury"]
    value = canaries.of_kind(kind)[-1]
    found = canaries.found(leak(b"\x00between\xff" + value + b"\xff other bytes\x00"))
    assert {one.within for one in found if one.kind == kind} >= {"up, in clear", "up, bodies"}
    assert not any(one.within.endswith("on the wire") for one in found)


@pytest.mark.parametrize(
    "hidden",
    [
        base64.b64encode,
        base64.urlsafe_b64encode,
        zlib.compress,
        gzip.compress,
        bytes.upper,
        lambda value: value.hex().encode(),
        lambda value: b"x" + base64.b64encode(b"{}" + value),
        lambda value: base64.b64encode(zlib.compress(value)),
        lambda value: value.decode().encode("utf-16-le"),
    ],
    ids=["base64", "urlsafe", "zlib", "gzip", "upper case", "hexadecimal", "within base64", "zlib in base64", "UTF-16"],
)
def test_what_leaves_in_another_form_is_found(leak: Leak, looked, hidden: Callable[[bytes], bytes]) -> None:
    canaries, _ = looked["bury"]
    found = canaries.found(leak(b'{"note": "' + hidden(NAME) + b'"}'))
    assert any("Grimsdyke" in one.name for one in found)


@pytest.mark.parametrize("encoding", ["float32", "bf16", "int8"])
def test_a_film_in_the_numbers_of_an_update_is_found(run: Watched, leak: Leak, looked, encoding: Encoding) -> None:
    canaries, _ = looked["bury"]
    home = home_of(run, "bury")
    film = next(iter(sorted((home.file.parent / "films").glob("*.dcm"))))
    image = read_image(film, open_bench(run.recipe, run.folder).net.size)
    update = Update(
        run=RUN, round=1, site="bury", delta=Adapter({"a.lora_A": image[0]}), patients=60, steps=1, loss=None, encoding=encoding
    )
    found = canaries.found(leak(stamped(wire.answer_to_bytes(update), home.identity().signing, purpose=ANSWER)))
    assert {(one.kind, one.name) for one in found} >= {("decoded pixels", film.name)}


@pytest.mark.parametrize("site", SITES)
def test_bytes_of_a_round_are_those_that_the_coordinator_counts(run: Watched, site: str) -> None:
    costs = costs_of(site, run.taps[site], rounds=ROUNDS)
    assert [(cost.round, cost.way) for cost in costs] == [(1, "up"), (1, "down"), (2, "up"), (2, "down")]
    for cost in costs:
        assert cost.adapter < cost.message < cost.calls < cost.wire
        assert cost.message < 1.05 * cost.adapter
    assert np.isfinite([cost.seconds for cost in costs]).all()


@pytest.mark.parametrize("site", SITES)
def test_a_site_that_trains_seldom_asks_for_more(run: Watched, site: str) -> None:
    calls = sorted((call for one in run.taps[site].connections for call in calls_of(one)), key=lambda call: call.asked.at)
    trained = [one for one in carried(calls) if one.kind == "train"]
    assert {one.way for one in trained} == {"up", "down"}
    for plan in (one for one in trained if one.way == "down"):
        begun = max(call.asked.at for call in plan.calls)
        given = min(one.at for one in trained if one.way == "up" and one.at > begun)
        looks = sum(call.name == "pull-messages" and begun < call.asked.at < given for call in calls)
        assert looks <= 2 + (given - begun) / BUSY_S


def test_a_hospital_that_looks_for_itself_is_told_what_left_and_not_whose(run: Watched, looked) -> None:
    folder = run.folder / "bury"
    value = next(value for value in looked["bury"][0].of_kind("DICOM headers") if value.startswith(b"grimsdyke^bur"))
    command = [sys.executable, "-m", "perf.own_traffic", str(folder / "bury.toml"), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "extra_ca" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        network = tomllib.loads(said[said.index("[network]") :])["network"]
        with node_through(run, network["proxy"], Path(network["extra_ca"])) as send:
            send(value)
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()
    assert process.returncode == 1, said
    assert "1 connections" in said
    assert "  DICOM headers: up, in clear\n" in said
    assert value.decode() not in said.lower()
