"""Who belongs to the consortium: enrolled once, with keys that are nobody else's, and out of it at once where revoked."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rainhill.enrolment import SiteRequest, node_pem
from rainhill.errors import RefusedError
from server.database import Database
from server.registry import Registry


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    database = Database.open(database_url)
    yield Registry(database=database)
    database.close()


def request(name: str = "bury", **changes: object) -> SiteRequest:
    about = {
        "name": name,
        "title": f"{name.capitalize()} General",
        "node_key": node_pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        "signing_key": Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
        "made": datetime.now(UTC),
        "software": "rainhill 0.1.0",
        "protocols": (3,),
    }
    return SiteRequest.model_validate(about | changes)


def test_a_site_is_enrolled_as_it_asked_and_who_did_it_is_kept(registry: Registry) -> None:
    asked = request()
    site = registry.enrol(asked, by="ada")
    assert (site.name, site.title, site.software, site.protocols) == ("bury", "Bury General", "rainhill 0.1.0", (3,))
    assert (site.node_key, site.signing_key.hex(), site.revoked) == (asked.node_key, asked.signing_key, None)
    assert registry.sites() == (site,)
    (event,) = registry.events()
    assert (event.by, event.what, event.subject, event.detail) == ("ada", "enrol", "bury", {"signing_key": asked.signing_key})


def test_a_second_site_of_one_name_is_refused_whoever_asks(registry: Registry) -> None:
    first = registry.enrol(request(), by="ada")
    with pytest.raises(RefusedError, match="bury: is enrolled already; new keys of the same hospital are taken by `rotate`"):
        registry.enrol(request(), by="ada")
    assert registry.sites() == (first,)
    assert len(registry.events()) == 1


@pytest.mark.parametrize("key", ["node_key", "signing_key"])
def test_a_key_stands_for_one_site_for_good(registry: Registry, key: str) -> None:
    known = request()
    registry.enrol(known, by="ada")
    with pytest.raises(RefusedError, match="oldham: one of its keys is known already, as one of bury since "):
        registry.enrol(request("oldham", **{key: getattr(known, key)}), by="ada")
    registry.rotate(request(), by="ada")
    # Nor once it is valid no more.
    with pytest.raises(RefusedError, match="as one of bury since"):
        registry.rotate(request(**{key: getattr(known, key)}), by="ada")


def test_keys_rotate_without_a_change_for_anybody_else(registry: Registry) -> None:
    other = registry.enrol(request("oldham"), by="ada")
    registry.enrol(request(), by="ada")
    fresh = request(title="Bury and Rochdale", protocols=(3, 4))
    site = registry.rotate(fresh, by="ada")
    assert (site.signing_key.hex(), site.title, site.protocols) == (fresh.signing_key, "Bury and Rochdale", (3, 4))
    assert site.since >= site.enrolled
    assert registry.site("oldham") == other
    with pytest.raises(RefusedError, match="no site 'burry' is enrolled, did you mean 'bury'"):
        registry.rotate(request("burry"), by="ada")


def test_a_revoked_site_is_active_no_more_and_stays_known(registry: Registry) -> None:
    registry.enrol(request(), by="ada")
    registry.enrol(request("oldham"), by="ada")
    gone = registry.revoke("bury", reason="left the study", by="grace")
    assert gone.revoked is not None and gone.reason == "left the study"
    assert set(registry.active()) == {"oldham"}
    assert [site.name for site in registry.sites()] == ["bury", "oldham"]
    with pytest.raises(RefusedError, match=r"bury: was revoked on 2\d{3}-.* UTC \(left the study\)"):
        registry.revoke("bury", reason="again", by="grace")
    # With new keys it is in again.
    assert registry.rotate(request(), by="ada").revoked is None
    assert set(registry.active()) == {"bury", "oldham"}
    assert [(event.by, event.what) for event in registry.events()] == [
        ("ada", "enrol"),
        ("ada", "enrol"),
        ("grace", "revoke"),
        ("ada", "rotate"),
    ]
