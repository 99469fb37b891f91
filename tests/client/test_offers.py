"""What a site is offered, what its people say to that, and what it may be asked then."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.egress import digest
from client.home import SiteHome
from client.journal import Approved, Left, Offered
from client.offers import Offers
from client.privacy.ledger import Ledger
from rainhill import signed
from rainhill.errors import ConfigError, CredentialError, LedgerError, RefusedError
from rainhill.offer import Offer, sealed_offer
from rainhill.recipe import Recipe
from tests.client.hospital import KEY, Asks, known, offers, rewrite

UNREAD = "the site has no data for it; the site's own log says what is missing"


def stands(at: Offers, offer: Offer, *, days: float = 0, number: int = 0, plan: str = "") -> tuple[str, str]:
    decided = at.settled(offer, datetime.now(UTC) + timedelta(days=days), number=number, plan=plan)
    return decided.state, decided.reason


def left(at: Offers, run: str, number: int, plan: str) -> None:
    told: dict[str, Any] = {"size": 1, "tensors": {}, "norm": 1.0, "numbers": {}, "epsilon": None}
    sha = "2" * 64
    at.journal.append(Left(run=run, round=number, recipe=sha, plan=plan, to="north_west", approved_by="Grace", update=sha, **told))


def recipe_with(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | changes)


def test_an_offer_is_kept_once_however_often_it_is_brought(site_file: Path, plain: Asks) -> None:
    at, sealed = offers(site_file), plain.sealed()
    assert at.take(sealed) == at.take(sealed) == at.offer("spring")
    assert at.names() == ["spring"] and at.sealed("spring") == sealed
    assert [type(event) for event in at.journal.events()[1:]] == [Offered]


def test_another_offer_of_the_same_run_is_refused_with_both_sha256(site_file: Path, plain: Asks) -> None:
    at, first, second = offers(site_file), plain.offer(), plain.offer(by="eve")
    at.take(sealed_offer(first, KEY))
    with pytest.raises(RefusedError, match=f"was offered as {first.sha256[:12]}, and is offered as {second.sha256[:12]} now"):
        at.take(sealed_offer(second, KEY))
    assert at.offer("spring") == first


def test_another_offer_is_refused_also_where_the_file_of_the_first_is_gone(site_file: Path, plain: Asks) -> None:
    """As after a crash between journal and file, or where a folder was put back to what it was."""
    at, first = offers(site_file), plain.offer()
    at.take(sealed_offer(first, KEY))
    at.approve("spring", by="Grace")
    (at.home.offers / "spring.offer").unlink()
    with pytest.raises(RefusedError, match="was offered as"):
        at.take(plain.sealed(by="eve"))
    assert stands(at, at.take(sealed_offer(first, KEY))) == ("approved", "")
    assert sum(isinstance(event, Offered) for event in at.journal.events()) == 1


def test_what_is_not_this_sites_or_not_its_consortiums_is_not_taken(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    with pytest.raises(RefusedError, match="run spring: asks calder, oldham, and this is bury"):
        at.take(plain.sealed(sites={"oldham": "0" * 64, "calder": "1" * 64}))
    with pytest.raises(CredentialError, match="is of consortium south_east, and this site belongs to north_west"):
        at.take(plain.sealed(consortium="south_east"))
    with pytest.raises(CredentialError, match="is signed with key .* trusted here"):
        at.take(sealed_offer(plain.offer(), signed.new_key()))
    with pytest.raises(CredentialError, match="not a signed document"):
        at.take(plain.offer().canonical())
    assert at.names() == [] and len(at.journal.events()) == 1


def test_ten_thousand_sites_that_are_asked_do_not_fill_the_sites_log(site_file: Path, plain: Asks) -> None:
    many = {f"site_{number}": f"{number:064x}" for number in range(2000)}
    with pytest.raises(RefusedError) as refused:
        offers(site_file).take(plain.sealed(sites=many))
    assert len(str(refused.value)) < 300 and "and 1990 more" in str(refused.value)


def test_offers_that_nobody_has_decided_on_are_kept_up_to_a_number(site_file: Path, plain: Asks) -> None:
    with site_file.open("a") as file:
        file.write("[policy]\nmax_pending = 2\n")
    at, first = offers(site_file), plain.sealed("spring")
    at.take(first)
    at.take(plain.sealed("summer"))
    with pytest.raises(RefusedError, match="^run autumn: 2 offers wait for a decision at bury, whose file keeps at most 2$"):
        at.take(plain.sealed("autumn"))
    assert at.names() == ["spring", "summer"] and sum(isinstance(event, Offered) for event in at.journal.events()) == 2
    # One that is known is brought again before each round.
    assert at.take(first) == at.offer("spring")
    at.decline("spring", by="Grace", reason="not this year")
    at.take(plain.sealed("autumn"))
    at.approve("autumn", by="Grace")
    at.take(plain.sealed("winter"))
    assert at.names() == ["autumn", "spring", "summer", "winter"]


def test_an_offer_whose_time_is_over_counts_no_more_a_day_after_it_was_brought(site_file: Path, plain: Asks) -> None:
    with site_file.open("a") as file:
        file.write("[policy]\nmax_pending = 1\n")
    at, now = offers(site_file), datetime.now(UTC)
    over = at.take(plain.sealed("spring", until=now - timedelta(minutes=1)))
    assert stands(at, over)[0] == "refused"
    # A coordinator could bring offers of a minute each, one after the other.
    with pytest.raises(RefusedError, match="1 offers wait for a decision"):
        at.take(plain.sealed("summer"))
    at._refuse_too_many(plain.offer("summer"), now + timedelta(days=1, minutes=1))
    at.decline("spring", by="Grace", reason="over")
    long = at.take(plain.sealed("autumn"))
    with pytest.raises(RefusedError, match="run winter"):
        at._refuse_too_many(plain.offer("winter"), long.until)
    at._refuse_too_many(plain.offer("winter"), long.until + timedelta(seconds=1))


def test_a_run_is_pending_until_a_person_says_yes_and_refused_when_one_says_no(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    assert stands(at, offer) == ("pending", "waits for somebody at the site to approve it")
    approved = at.approve("spring", by="Grace")
    assert (approved.recipe, approved.offer, approved.rounds) == (plain.recipe.sha256, offer.sha256, 2)
    assert stands(at, offer) == ("approved", "")
    at.decline("spring", by="Grace", reason="our scanners are being changed")
    assert stands(at, offer) == ("refused", "our scanners are being changed")
    at.approve("spring", by="Grace")
    assert stands(at, offer) == ("approved", "")


def test_a_run_that_nobody_offered_cannot_be_approved_or_refused(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    for decide in (lambda: at.approve("sprng", by="Grace"), lambda: at.decline("sprng", by="Grace", reason="no"), lambda: at.offer("../x")):
        with pytest.raises(RefusedError, match="was never offered to bury"):
            decide()
    with pytest.raises(RefusedError, match="did you mean 'spring'"):
        at.approve("sprng", by="Grace")


def test_an_approval_is_of_the_offer_that_was_shown_and_of_no_other_with_the_runs_name(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace", repeats=5)
    other = plain.offer(recipe=recipe_with(plain.recipe, {"seed": 7}))
    assert at.decided(other, datetime.now(UTC)).state == "pending"
    assert at.decided(plain.offer(by="eve"), datetime.now(UTC)).state == "pending"


def test_who_was_shown_another_offer_decides_nothing_and_is_told_both(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer, before = at.take(plain.sealed()), at.journal.events()
    words = f"what was shown is offer 000000000000, and what is here now is {offer.sha256[:12]}"
    with pytest.raises(RefusedError, match=words):
        at.approve("spring", by="Grace", shown="0" * 64)
    with pytest.raises(RefusedError, match=words):
        at.decline("spring", by="Grace", reason="no", shown="0" * 64)
    assert at.journal.events() == before and at.approve("spring", by="Grace", shown=offer.sha256).offer == offer.sha256


def test_an_approval_ends_at_its_time_and_an_offer_at_its_own(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer, late = at.take(plain.sealed()), at.take(plain.sealed("autumn"))
    at.approve("spring", by="Grace", days=3)
    assert stands(at, offer, days=2.9)[0] == "approved"
    state, reason = stands(at, offer, days=3.1)
    assert state == "pending" and reason.startswith("its approval ended on 20")
    assert stands(at, late, days=13)[0] == "pending"
    state, reason = stands(at, late, days=15)
    assert state == "refused" and reason.startswith("nobody at the site approved it by ")


def test_an_offer_that_is_over_cannot_be_approved(site_file: Path, plain: Asks) -> None:
    at, now = offers(site_file), datetime.now(UTC)
    at.take(plain.sealed(made=now - timedelta(days=9), until=now - timedelta(days=1)))
    with pytest.raises(RefusedError, match="run spring: could be approved until .* UTC, and it is "):
        at.approve("spring", by="Grace")


def test_so_many_updates_leave_as_rounds_were_approved(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    at.approve("spring", by="Grace", rounds=1)
    first, second = digest(plain.plan(1)), digest(plain.plan(2))
    left(at, "spring", 1, first)
    assert stands(at, offer, number=2, plan=second) == ("pending", "was approved for 1 rounds, which are done")
    # One that was lost on its way may leave again.
    assert stands(at, offer, number=1, plan=first)[0] == "approved"


def test_no_more_rounds_are_approved_than_the_run_has(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    before = len(at.journal.entries())
    with pytest.raises(RefusedError, match="run spring: has 2 rounds, and 99 would be approved"):
        at.approve("spring", by="Grace", rounds=99)
    assert len(at.journal.entries()) == before


def test_a_private_run_is_not_approved_where_the_ledger_cannot_be_read(site_file: Path, private: Asks) -> None:
    with site_file.open("a") as file:
        file.write("[privacy]\nepsilon = 8\n")
    at = offers(site_file)
    at.take(private.sealed())
    Ledger.open(at.home.state, site="bury")
    (at.home.state / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        at.approve("spring", by="Grace")
    assert not any(isinstance(event, Approved) for event in at.journal.events())


def test_another_plan_of_a_round_that_left_is_another_look_at_the_patients(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    at.approve("spring", by="Grace", rounds=1)
    left(at, "spring", 1, digest(plain.plan(1)))
    again = digest(plain.plan(1, seed=1))
    assert stands(at, offer, number=1, plan=again) == ("pending", "was approved for 1 rounds, which are done")


def test_repeats_approve_further_runs_of_the_very_same_recipe_and_so_many(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace", repeats=1, days=9)
    autumn, winter = at.take(plain.sealed("autumn")), at.take(plain.sealed("winter"))
    assert stands(at, autumn)[0] == "approved" and stands(at, winter)[0] == "pending"
    assert stands(at, autumn)[0] == "approved"
    drawn = [event for event in at.journal.events() if isinstance(event, Approved)][-1]
    assert (drawn.run, drawn.by, drawn.envelope, drawn.repeats) == ("autumn", "Grace", True, 0)


def test_a_look_at_what_is_asked_uses_no_repeat_up(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace", repeats=1)
    autumn, before = at.take(plain.sealed("autumn")), len(at.journal.events())
    assert at.decided(autumn, datetime.now(UTC)).state == "approved" and len(at.journal.events()) == before


def test_a_repeat_is_not_used_for_an_offer_that_is_over_or_that_was_refused(site_file: Path, plain: Asks) -> None:
    at, now = offers(site_file), datetime.now(UTC)
    at.take(plain.sealed())
    at.approve("spring", by="Grace", repeats=5)
    over = at.take(plain.sealed("autumn", made=now - timedelta(days=9), until=now - timedelta(days=1)))
    assert stands(at, over)[0] == "refused"
    winter = at.take(plain.sealed("winter"))
    at.decline("winter", by="Grace", reason="not in winter")
    assert stands(at, winter) == ("refused", "not in winter")
    at.decline("spring", by="Grace", reason="no more")
    assert stands(at, at.take(plain.sealed("summer")))[0] == "pending"


def _changed(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of a recipe, with a value that it has not."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _changed(value, (*prefix, key))
        elif isinstance(value, bool):
            yield (*prefix, key), not value
        elif isinstance(value, int | float):
            yield (*prefix, key), value / 2 if isinstance(value, float) and value else int(value) + 1
        elif isinstance(value, str) and key != "head":
            yield (*prefix, key), f"{'1' * 64}" if key == "sha256" else f"{value}x"


@given(data=st.data())
def test_whatever_key_of_the_recipe_is_changed_a_person_is_asked(data: st.DataObject, again: tuple[Offers, Asks]) -> None:
    at, plain = again
    tree = plain.recipe.model_dump(mode="json")
    path, value = data.draw(st.sampled_from(list(_changed(tree))))
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        recipe = Recipe.model_validate(tree)
    except ValueError:
        return
    offer = plain.offer("autumn", recipe=recipe)
    assert at.decided(plain.offer("winter"), datetime.now(UTC)).state == "approved"
    assert at.decided(offer, datetime.now(UTC)).state in {"pending", "refused"}


@pytest.fixture(scope="module")
def again(_joined: Path, plain: Asks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Offers, Asks]:
    """Approved, with repeats."""
    folder = copytree(_joined.parent, tmp_path_factory.mktemp("again") / "site")
    at = offers(folder / "bury.toml")
    at.take(plain.sealed())
    at.approve("spring", by="Grace", repeats=9)
    return at, plain


def test_what_the_sites_file_says_afterwards_beats_an_approval(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    at.approve("spring", by="Grace")
    with site_file.open("a") as file:
        file.write('[policy]\nrules = ["ffa"]\n')
    assert stands(offers(site_file), offer) == ("refused", "rule fedavg, the site allows ffa")


def test_a_site_without_privacy_refuses_a_private_recipe_by_name(site_file: Path, private: Asks) -> None:
    at = offers(site_file)
    offer = at.take(private.sealed())
    said = "epsilon 6 is asked, and the site's file has no [privacy] that says what patients may spend"
    assert stands(at, offer) == ("refused", said)
    with pytest.raises(RefusedError, match="the site's own file does not allow it: epsilon 6 is asked"):
        at.approve("spring", by="Grace")


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        (
            "base",
            {"sha256": "3" * 64},
            "base model 333333333333: is not at this site; the consortium's operator packs it into a new bundle",
        ),
        ("strategy", {"rule": "fedavgg"}, "no rule is called 'fedavgg', did you mean 'fedavg'?"),
        ("task", {"name": "finding"}, "no task is called 'finding', did you mean 'findings'?"),
        ("base", {"model": "vitt"}, "model vitt is not in the Rainhill that the site has installed"),
    ],
)
def test_what_the_site_has_not_got_is_refused_by_name(
    site_file: Path, plain: Asks, section: str, changes: dict[str, str], said: str
) -> None:
    at, tree = offers(site_file), plain.recipe.model_dump()
    offer = at.take(plain.sealed(recipe=recipe_with(plain.recipe, {section: tree[section] | changes})))
    state, reason = stands(at, offer)
    assert state == "refused" and said in reason
    with pytest.raises(RefusedError, match="does not allow it"):
        at.approve("spring", by="Grace")


def test_offers_cannot_find_out_what_is_in_the_sites_data(site_file: Path, plain: Asks) -> None:
    """Whether there is a column of labels, or few patients, is told only of a run that somebody approved."""
    at = offers(site_file)
    hiv = {"name": "findings", "findings": ["hiv"], "start_from": {"hiv": "square"}}
    offer = at.take(plain.sealed(recipe=recipe_with(plain.recipe, {"task": hiv})))
    assert stands(at, offer) == ("pending", "waits for somebody at the site to approve it")
    few = at.take(plain.sealed("autumn"))
    with site_file.open("a") as file:
        file.write("[policy]\nmin_patients = 1000\n")
    at = offers(site_file)
    assert stands(at, few) == ("pending", "waits for somebody at the site to approve it")
    with pytest.raises(RefusedError, match="fewer training patients than the 1000 that the site wants at least"):
        at.approve("autumn", by="Grace")


def test_of_data_that_are_gone_nothing_is_told_but_that(site_file: Path, plain: Asks, caplog: pytest.LogCaptureFixture) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    at.approve("spring", by="Grace")
    manifest = site_file.parent / "bury" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("P7,", ","))
    assert stands(at, offer) == ("refused", UNREAD)
    assert "manifest.csv" in caplog.text
    manifest.unlink()
    assert stands(at, offer) == ("refused", UNREAD)


def test_a_lost_key_of_pseudonyms_is_not_told_of_by_its_path(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    at.approve("spring", by="Grace")
    key = at.home.state / "pseudonym.key"
    key.chmod(0o644)
    assert stands(at, offer) == ("refused", UNREAD)


def test_a_base_that_cannot_be_read_is_not_told_of_by_its_path(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    (at.home.consortium / "manifest.json").write_bytes(b"{}")
    # Without the bundle nobody can say whose the offer is; with it, what is wrong with the base is the site's own matter.
    with pytest.raises(CredentialError):
        at.take(plain.sealed())
    state, reason = stands(at, offer)
    assert state == "refused" and str(at.home.state) not in reason and "cannot be read; the site's own log says why" in reason


def test_offers_of_a_consortium_that_the_site_has_left_are_none_and_in_nobodys_way(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace", repeats=3)
    other = signed.new_key()
    known(at.home, key=other, consortium="south_east")
    assert at.names() == []
    with pytest.raises(RefusedError, match="was offered as"):
        at.take(sealed_offer(plain.offer(consortium="south_east"), other))


def test_tensors_that_no_update_could_be_made_of_are_refused_before_a_person_is_asked(site_file: Path, plain: Asks) -> None:
    at, tensors = offers(site_file), dict(plain.offer().tensors)
    name = next(name for name in tensors if name.endswith("lora_A"))
    offer = at.take(plain.sealed(tensors=tensors | {name: (3, 16)}))
    state, reason = stands(at, offer)
    assert state == "refused" and "cannot begin from the tensors that are offered" in reason


def test_tensors_that_no_machine_could_hold_are_no_offer(plain: Asks) -> None:
    with pytest.raises(ValueError, match="its tensors hold .* values, more than"):
        plain.offer(tensors={"head.weight": (2**31, 2**31)})


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_journal_on_a_disk_that_takes_nothing_approves_nothing_and_says_so(
    site_file: Path, plain: Asks, tmp_path: Path, how: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        here = copytree(site_file.parent, disk / "site") / "bury.toml"
        at = offers(here)
        offer = at.take(plain.sealed())
        if how == "full":
            with pytest.raises(OSError, match="No space left"):
                _fill(disk / "filler")
        else:
            assert os.system(f"mount -o remount,ro {disk}") == 0
        with pytest.raises((LedgerError, OSError), match=r"full|No space left|I/O error|readonly|[Rr]ead-only"):
            at.approve("spring", by="Grace")
        if how == "full":
            (disk / "filler").unlink()
        assert stands(at, offer)[0] == "pending" if how == "full" else at.decided(offer, datetime.now(UTC)).state == "pending"
    finally:
        os.system(f"umount {disk}")


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def test_a_journal_of_another_site_or_a_changed_one_is_not_believed(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    at.journal.head.write_text(json.dumps({"seq": 2, "hash": "f" * 64}))
    with pytest.raises(LedgerError, match="entries are gone, or another journal was put in its place"):
        offers(site_file)


def test_what_the_sites_file_says_counts_at_once_and_its_name_and_folder_stay(site_file: Path) -> None:
    home = SiteHome.open(site_file)
    rewrite(site_file, 'title = "Bury General"', 'title = "Fairfield"')
    assert home.again().config.title == "Fairfield"
    rewrite(site_file, 'name = "bury"', 'name = "bury"\nstate = "elsewhere"')
    with pytest.raises(ConfigError, match="state is .*elsewhere now, and was .* when the daemon began: start it again"):
        home.again()


def test_updates_are_masked_with_sites_of_the_bundle_alone(site_file: Path, plain: Asks) -> None:
    """With the keys of sites that it made up, a coordinator would know all masks but one."""
    at = offers(site_file)
    masked = Asks(recipe=recipe_with(plain.recipe, {"secure_aggregation": {}}), first=plain.first)
    own = at.home.identity().signing_public.hex()
    invented = at.take(masked.sealed(sites={"bury": own, "oldham": "1" * 64, "wirral": "2" * 64}))
    said = "masks updates with oldham, wirral, whose keys are not those of the site's bundle: join again with a new one"
    assert stands(at, invented) == ("refused", said)
    with pytest.raises(RefusedError, match="masks updates with oldham, wirral"):
        at.approve("spring", by="Grace")
    assert stands(at, at.take(plain.sealed("summer"))) == ("pending", "waits for somebody at the site to approve it")
