"""The pages of a site's console, in a real browser, of a hospital whose books its own daemon filled."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page as Tab

from client import pausing
from client.console import PER_PAGE
from client.console.accounts import accounts_of
from client.console.pages import console_of
from client.egress import Door
from client.home import SiteHome, outcomes
from client.journal import Approved, Declined, OutcomeTold, Released, Withheld
from client.offers import training_patients
from client.privacy.events import Members
from client.privacy.ledger import Ledger
from rainhill.messages import Refusal
from rainhill.told import Told
from tests.browser import PASSWORD, PHONE, axe, browser, overflow, page, served, sign_in
from tests.client.console.hospital import World
from tests.conftest import write_hospital
from tests.server.conftest import free_port

__all__ = ["browser", "page"]
PAGES = ("/", "/asked", "/asked/autumn", "/asked/greedy", "/held", "/left", "/privacy", "/brought")
LEFT, HELD = 4, 2
"""Entry of the journal by which the first update left; updates that are held."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_digest: str, recipe_text: Callable[..., str]) -> World:
    return World(tmp_path_factory.mktemp("world"), tiny_base, tiny_digest, recipe_text)


@pytest.fixture(scope="module")
def origin(world: World) -> Iterator[str]:
    with served(console_of(world.home)) as address:
        yield address


def written(world: World, *kinds: type) -> list[Any]:
    return [event for event in world.offers.journal.events() if isinstance(event, kinds)]


def patients(world: World) -> int:
    """Of the training part, which each site deals by lots of its own."""
    return len(training_patients(world.home, world.offers.offer("winter")))


def said(page: Tab, words: str, *, role: str = "status") -> None:
    page.get_by_role(role).get_by_text(words).wait_for()  # type: ignore[arg-type]


def refused(page: Tab, words: str) -> None:
    said(page, words, role="alert")


def forget(page: Tab) -> None:
    """That a page which is not there, or not for this account, was answered so."""
    page.errors.clear()  # type: ignore[attr-defined]


def fact(page: Tab, name: str) -> str:
    return page.locator(f"dt:text-is('{name}') + dd").first.inner_text()


def test_every_page_is_for_everybody_and_names_no_patient(world: World, origin: str, page: Tab) -> None:
    ledger = Ledger.open(world.home.state, site="bury")
    pseudonyms = {one for event in ledger.events() if isinstance(event, Members) for one in event.patients}
    assert len(pseudonyms) >= patients(world)
    sign_in(page, origin, "grace")
    for path in (*PAGES, f"/left/{LEFT}"):
        page.emulate_media(color_scheme="light")
        page.goto(origin + path)
        assert axe(page) == [], path
        page.emulate_media(color_scheme="dark")
        assert axe(page) == [], path
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        assert overflow(page) == 0, path
        page.set_viewport_size({"width": 1280, "height": 900})
        assert not any(one in page.content() for one in pseudonyms), path


def test_a_lead_reads_what_is_asked_approves_a_part_of_it_and_takes_that_back(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "grace")
    page.get_by_role("link", name="winter").click()
    # What the coordinator wrote is shown as it is, and makes no page of its own.
    page.get_by_text("<b>Winter</b>").first.wait_for()
    assert fact(page, "asked by").startswith("ada of north_west, on ")
    assert fact(page, "your data") == f"bury/manifest.csv, {patients(world)} training patients"
    assert fact(page, "in a round").startswith("at most 482 numbers, 1,928 bytes")
    assert fact(page, "this run").startswith("epsilon 2.500 per patient at delta 1e-05; your file allows 8")
    offer = world.offers.offer("winter")
    assert fact(page, "recipe") == offer.recipe.sha256 and fact(page, "offer") == offer.sha256
    changed = page.get_by_role("region", name="What has changed")
    assert "privacy.epsilon" in changed.inner_text() and changed.locator("del").last.inner_text() == "A small world"
    page.get_by_label("Rounds").fill("1")
    page.get_by_label("Days").fill("7")
    page.get_by_role("button", name="Approve run winter").click()
    said(page, "run winter is approved by grace: 1 rounds, until ")
    approved = written(world, Approved)[-1]
    assert (approved.run, approved.by, approved.rounds, approved.offer) == ("winter", "grace", 1, offer.sha256)
    page.get_by_text("by grace: 1 of 1 rounds may still leave").wait_for()
    page.get_by_label("Reason").fill("our scanners <change>")
    page.get_by_role("button", name="Take it back").click()
    said(page, "run winter is refused; the coordinator is told when it asks next")
    page.get_by_text("by grace: our scanners <change>").first.wait_for()
    declined = written(world, Declined)[-1]
    assert (declined.run, declined.by, declined.reason) == ("winter", "grace", "our scanners <change>")


def test_a_decision_is_on_what_was_shown_and_on_nothing_else(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "grace")
    offer, before = world.offers.offer("autumn"), written(world, Approved, Declined)
    for shown, words in (
        ("0" * 64, f"what was shown is offer 000000000000, and what is here now is {offer.sha256[:12]}: look again"),
        ("", "the form does not say which offer was shown"),
    ):
        for button in ("Approve run autumn", "Refuse run autumn"):
            page.goto(f"{origin}/asked/autumn")
            page.evaluate("shown => document.querySelectorAll('input[name=offer]').forEach(one => one.value = shown)", shown)
            page.get_by_label("Reason").fill("no")
            page.get_by_role("button", name=button).click()
            refused(page, words)
    page.evaluate("document.querySelector('#days').type = 'text'")
    page.get_by_label("Days").fill("many")
    page.get_by_role("button", name="Approve run autumn").click()
    refused(page, "days: 'many' is no whole number from 1 to 3650")
    assert written(world, Approved, Declined) == before


def test_what_the_sites_own_file_forbids_cannot_be_approved_and_the_page_says_why(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "grace")
    page.goto(f"{origin}/asked/greedy")
    page.get_by_text("It cannot be approved: recipe tiny asks for epsilon 50 in one run, the site allows 8").wait_for()
    assert page.get_by_role("button", name="Approve").count() == 0
    page.goto(f"{origin}/asked/gredy")
    page.get_by_text("run gredy: was never offered to this site, did you mean 'greedy'?").wait_for()
    forget(page)


def test_of_two_held_updates_one_is_withheld_and_the_other_released(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "grace")
    page.get_by_role("link", name="to release or withhold").click()
    assert fact(page, "length").endswith("the site's file lets out at most 10 within it")
    updates = [one.inner_text().removeprefix("sha256 ") for one in page.locator("dt:text-is('update') + dd").all()]
    assert len(set(updates)) == HELD
    page.get_by_label("Reason").first.fill("the wrong plan")
    page.get_by_role("button", name="Withhold it").first.click()
    said(page, f"update {updates[0][:12]} of run summer, round 2 is withheld")
    page.get_by_role("button", name="Release it").click()
    said(page, f"update {updates[1][:12]} of run summer, round 2 is released")
    page.get_by_text("No update waits.").wait_for()
    withheld, released = written(world, Withheld), written(world, Released)
    assert [(one.update, one.by, one.reason) for one in withheld] == [(updates[0], "grace", "the wrong plan")]
    assert [(one.update, one.by) for one in released] == [(updates[1], "grace")]


def test_what_left_is_told_page_by_page_and_each_update_has_a_record_to_print(world: World, origin: str, page: Tab) -> None:
    door = Door(home=world.home, journal=world.offers.journal)
    for number in range(PER_PAGE):
        door.refused(Refusal(run="spring", round=number, site="bury", reason="was not ready"))
    sign_in(page, origin, "vic")
    page.get_by_role("link", name="What left").first.click()
    assert page.locator("tbody tr").count() == PER_PAGE
    page.get_by_role("link", name="Older entries").click()
    assert page.locator("tbody tr").count() == 2
    page.get_by_role("link", name="spring, round 1").click()
    left = world.offers.journal.events()[LEFT - 1]
    assert fact(page, "update") == f"sha256 {left.update}"
    assert fact(page, "size") == f"{left.size:,} bytes: 482 numbers in 14 tensors"
    assert fact(page, "approved by").startswith("grace, on ") and fact(page, "asked by") == "ada of north_west"
    assert fact(page, "charged").startswith("4 steps for the update") and fact(page, "the whole run") == "epsilon 3 at most"
    assert fact(page, "spent in the run until then").startswith("epsilon 2.1")
    page.emulate_media(media="print")
    assert not page.get_by_role("banner").is_visible() and page.get_by_role("heading", name="Record of what left").is_visible()
    page.emulate_media(media="screen")
    page.goto(f"{origin}/left/1")
    page.get_by_text("is not of an update that left").wait_for()
    forget(page)


def test_what_was_spent_and_what_it_brought_are_drawn_with_their_numbers(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    page.goto(f"{origin}/privacy")
    drawn = page.get_by_role("img", name="Epsilon spent by the patient who has spent most, after each charge")
    assert "After 2 charges, with run spring: 3.000. After 4 charges, with run summer: 3." in drawn.text_content()
    assert "3.000 of 3" in page.get_by_role("region", name="Spent by run").inner_text()
    assert page.get_by_text("it holds").is_visible()
    page.goto(f"{origin}/brought")
    rows = page.get_by_role("region", name="Run spring").locator("tbody tr")
    assert rows.count() == 3 and rows.nth(2).get_by_role("img").count() == 2
    assert f"on {outcomes(world.home)['spring']['patients']} patients of the site's test part" in page.content()
    assert (
        page.get_by_text("Of a run that ends from now on none of this leaves").is_visible()
        and page.get_by_text("None of it has left.").is_visible()
    )
    world.offers.journal.append(
        OutcomeTold(run="spring", recipe="4" * 64, to="north_west", outcome=Told.of(outcomes(world.home)["spring"]))
    )
    page.reload()
    assert page.get_by_text("The consortium was told these numbers.").is_visible() and page.get_by_text("None of it has left.").count() == 0


def test_what_a_run_that_writes_brought_and_told_is_shown_as_label_f1(world: World, origin: str, page: Tab) -> None:
    outcome = world.home.run("spring") / "outcome.json"
    whole = outcome.read_bytes()
    try:
        outcome.write_text(json.dumps(json.loads(whole) | {"measure": "label_f1", "left_out": [], "private_steps": 0, "temperature": 1.0}))
        told = Told.of(outcomes(world.home)["spring"])
        world.offers.journal.append(OutcomeTold(run="spring", recipe="4" * 64, to="north_west", outcome=told))
        sign_in(page, origin, "vic")
        assert "label F1 of drafts, " in page.get_by_role("region", name="What the last run brought").inner_text()
        page.goto(f"{origin}/brought")
        page.get_by_text("Label F1 of drafts, with 95 % intervals, on").wait_for()
        assert page.get_by_text("than the shared adapter alone: there is none.").is_visible()
        rows = page.get_by_role("region", name="Run spring").get_by_role("row")
        assert rows.first.inner_text().split("\t")[1] == "Label F1" and rows.count() == 4
        assert "AUROC" not in page.content()
        page.goto(f"{origin}/left")
        page.get_by_text(f"Label F1 with intervals, by [policy] tell_outcome: base {told.levels.base or 'not measured'}").wait_for()
        outcome.write_text(json.dumps(json.loads(whole) | {"measure": "dice"}))
        page.goto(f"{origin}/brought")
        page.get_by_text("Input should be 'auroc' or 'label_f1'").wait_for()
    finally:
        outcome.write_bytes(whole)


def test_who_only_looks_or_looks_after_the_daemon_decides_nothing(world: World, origin: str, page: Tab) -> None:
    before = len(world.offers.journal.entries())
    sign_in(page, origin, "vic")
    assert page.get_by_role("button").count() == 1
    for path in ("/asked/autumn", "/held"):
        page.goto(origin + path)
        assert page.get_by_role("button").count() == 1
    page.goto(f"{origin}/accounts")
    page.get_by_text("vic is viewer here, and this is for admin").wait_for()
    forget(page)
    page.context.clear_cookies()
    sign_in(page, origin, "ada")
    page.get_by_role("button", name="Pause the site").click()
    said(page, "the site has paused")
    pause = pausing.paused(world.home)
    assert pause is not None and pause.by == "ada"
    # The form of a page from before.
    form = "form => { form.action = '/asked/autumn/refuse'; form.submit(); }"
    page.locator("form[action='/resume']").evaluate(form)
    page.get_by_text("ada is admin here, and this is for governance").wait_for()
    forget(page)
    page.goto(origin)
    page.get_by_role("button", name="Go on").click()
    said(page, "the site goes on")
    assert pausing.paused(world.home) is None and [event.by for event in world.offers.journal.events()[before:]] == ["ada", "ada"]


def test_an_admin_looks_after_accounts_and_never_out_of_the_last_admin(
    world: World, origin: str, page: Tab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    secret = "nobody may read this one"
    sign_in(page, origin, "ada")
    page.get_by_role("link", name="Accounts").click()
    assert axe(page) == []
    page.get_by_label("Name").fill("lin")
    page.get_by_label("Role").select_option("governance")
    page.get_by_label("Password", exact=True).fill(secret)
    page.get_by_label("The password again").fill(secret + "!")
    page.get_by_role("button", name="Add").click()
    refused(page, "the two passwords are not the same")
    page.get_by_label("Name").fill("lin")
    page.get_by_label("Password", exact=True).fill(secret)
    page.get_by_label("The password again").fill(secret)
    page.get_by_role("button", name="Add").click()
    said(page, "lin may sign in, as viewer")
    page.get_by_role("link", name="lin").click()
    assert axe(page) == []
    page.get_by_label("Role").select_option("governance")
    page.get_by_role("button", name="Change the role").click()
    said(page, "lin is governance, and has to sign in again")
    page.goto(f"{origin}/accounts/lin")
    for field in ("New password", "The password again"):
        page.get_by_label(field).fill(secret[::-1])
    page.get_by_role("button", name="Set the password").click()
    said(page, "lin has another password")
    accounts = accounts_of(world.home)
    assert accounts.verified("lin", secret[::-1]) and not accounts.verified("lin", secret) and accounts.role_of("lin") == "governance"
    for button in ("Remove ada", "Change the role"):
        page.goto(f"{origin}/accounts/ada")
        page.get_by_label("Role").select_option("viewer")
        page.get_by_role("button", name=button).click()
        refused(page, "account ada: is the only one with role admin; give somebody else that role first")
    page.goto(f"{origin}/accounts/lin")
    page.get_by_role("button", name="Remove lin").click()
    said(page, "lin may sign in no more")
    assert set(accounts.all()) == {"ada", "grace", "vic"}
    assert "lin has another password" in caplog.text and secret not in caplog.text and secret[::-1] not in caplog.text


def test_what_does_not_hold_is_said_in_one_line_and_hides_nothing_else(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "grace")
    head, text = world.home.state / "ledger.head", world.file.read_text()
    kept = head.read_bytes()
    try:
        head.write_text('{"seq": 99, "hash": "' + "f" * 64 + '"}')
        page.goto(origin)
        page.get_by_text("entries are gone, or another ledger was put in its place").first.wait_for()
        assert page.get_by_role("link", name="autumn").is_visible() and "spring, round 2" in page.content()
        page.goto(f"{origin}/privacy")
        page.get_by_text("what the patients have spent cannot be told, and no private run goes on here").wait_for()
    finally:
        head.write_bytes(kept)
    try:
        world.file.write_text(text + "\n[polcy]\n")
        page.goto(f"{origin}/asked")
        page.get_by_text("polcy: unknown key, did you mean 'policy'?").wait_for()
        assert page.get_by_role("link", name="autumn").is_visible()
    finally:
        world.file.write_text(text)
    outcome = world.home.run("spring") / "outcome.json"
    journal, whole = world.home.state / "journal.head", outcome.read_bytes()
    kept = journal.read_bytes()
    try:
        outcome.write_text("{}")
        journal.write_text('{"seq": 99, "hash": "' + "f" * 64 + '"}')
        for path, words in (
            ("/", "outcome.json there is none of ours"),
            ("/asked", "What was asked cannot be told while the journal does not hold."),
            ("/left", "What left cannot be told while the journal does not hold."),
            ("/held", "another journal was put in its place"),
        ):
            page.goto(origin + path)
            page.get_by_text(words).first.wait_for()
        page.goto(f"{origin}/privacy")
        assert page.get_by_text("it holds").is_visible()
    finally:
        journal.write_bytes(kept)
        outcome.write_bytes(whole)


def test_a_site_that_has_joined_nothing_yet_has_a_console_that_says_so(tmp_path: Path, page: Tab) -> None:
    file = write_hospital(tmp_path, "bury", patients=4)
    home = SiteHome.open(file)
    home = replace(home, config=home.config.model_copy(update={"console": home.config.console.model_copy(update={"port": free_port()})}))
    accounts_of(home).add("grace", role="governance", password=PASSWORD)
    with served(console_of(home)) as address:
        sign_in(page, address, "grace")
        page.get_by_text("has joined no consortium").first.wait_for()
        for path, words in (
            ("/asked", "The site was asked nothing yet."),
            ("/held", "has joined no consortium"),
            ("/left", "Nothing has left."),
            ("/privacy", "There is none yet; the first private run begins it."),
            ("/brought", "No run has come to an end here."),
        ):
            page.goto(address + path)
            page.get_by_text(words).first.wait_for()
    assert not (home.state / "journal.sqlite").exists()
