"""One file from a consortium to a site: it comes back as it was, and nothing else is taken from it."""

import hashlib
import os
import shutil
import stat
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rainhill import signed, weights
from rainhill.address import Address
from rainhill.bundle import opened_bundle, unpack, write_bundle
from rainhill.enrolment import BUNDLE, Bundle, BundledBase, BundledWheel
from rainhill.errors import BaseModelError, CredentialError

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
PRIVATE, OTHER = b"\1" * 32, b"\2" * 32
TOLD = signed.fingerprint(signed.public_key(PRIVATE))
WHEEL = "rainhill-0.1.0-py3-none-any.whl"
CA = b"-----BEGIN CERTIFICATE-----\n"
BASE_FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 20, "preprocessor_config.json": b'{"size":32}'}
CARRIED = ["manifest.json", "ca.crt", *(f"bases/thorax/{name}" for name in BASE_FILES), f"wheels/{WHEEL}"]


def sources(folder: Path) -> dict[str, Path]:
    base = folder / "thorax"
    base.mkdir()
    for name, data in BASE_FILES.items():
        (base / name).write_bytes(data)
    (base / "README.md").write_text("is not pinned, and is not carried")
    (folder / WHEEL).write_bytes(b"a wheel" * 100)
    return {"thorax": base, WHEEL: folder / WHEEL}


def manifest_of(files: dict[str, Path], **changes: object) -> Bundle:
    wheel = files[WHEEL].read_bytes()
    size = sum(map(len, BASE_FILES.values()))
    return Bundle(
        **{
            "consortium": "liverpool",
            "title": "Liverpool and Manchester",
            "site": "aintree",
            "coordinator": Address(host="coordinator.example.org", port=8443),
            "ca": hashlib.sha256(CA).hexdigest(),
            "consortium_key": signed.public_key(PRIVATE).hex(),
            "peers": {"aintree": "1" * 64},
            "bases": (BundledBase(name="thorax", sha256=weights.digest(files["thorax"]), size=size),),
            "wheels": (BundledWheel(file=WHEEL, sha256=hashlib.sha256(wheel).hexdigest(), size=len(wheel)),),
            "made": NOW,
            "expires": NOW + timedelta(days=30),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def manifest(files: dict[str, Path]) -> Bundle:
    return manifest_of(files)


@pytest.fixture(scope="module")
def written(files: dict[str, Path], manifest: Bundle, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "bundle.zip"
    write_bundle(path, manifest, PRIVATE, CA, files)
    return path.read_bytes()


@pytest.fixture
def bundle(written: bytes, tmp_path: Path) -> Path:
    (tmp_path / "bundle.zip").write_bytes(written)
    return tmp_path / "bundle.zip"


def refused(path: Path, *, expect: str | None = TOLD, now: datetime = NOW) -> str:
    """Both ways of reading refuse it, with the same words, and leave nothing behind."""
    with pytest.raises(CredentialError) as error:
        opened_bundle(path, expect=expect, now=now)
    with pytest.raises(CredentialError) as again:
        unpack(path, path.parent / "unpacked", expect=expect, now=now)
    assert str(again.value) == str(error.value)
    assert not list(path.parent.glob("unpacked*"))
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def packed(path: Path, contents: list[tuple[str | ZipInfo, bytes]]) -> Path:
    """A zip made by somebody else; a name becomes a plain entry."""
    with ZipFile(path, "w") as archive:
        for name, data in contents:
            info = plain(name) if isinstance(name, str) else name
            archive.writestr(info, data)
    return path


def plain(name: str, *, mode: int = stat.S_IFREG | 0o644) -> ZipInfo:
    info = ZipInfo(name)
    info.external_attr = mode << 16
    return info


def contents_of(bundle: Path) -> dict[str, bytes]:
    with ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_comes_back_as_it_was(bundle: Path, manifest: Bundle, tmp_path: Path) -> None:
    assert opened_bundle(bundle, expect=TOLD, now=NOW) == manifest
    assert opened_bundle(bundle, expect=None, now=manifest.expires) == manifest
    assert unpack(bundle, tmp_path / "a" / "unpacked", expect=TOLD, now=NOW) == manifest
    found = {
        str(path.relative_to(tmp_path / "a" / "unpacked")): path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()
    }
    assert found == contents_of(bundle)
    assert sorted(found) == sorted(CARRIED)
    assert weights.digest(tmp_path / "a" / "unpacked" / "bases" / "thorax") == manifest.bases[0].sha256
    assert stat.S_IMODE((tmp_path / "a" / "unpacked").stat().st_mode) == 0o700


def test_the_same_contents_give_the_same_bytes(written: bytes, manifest: Bundle, tmp_path: Path) -> None:
    files = sources(tmp_path)
    for path in (*files["thorax"].iterdir(), files[WHEEL]):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o600)
    write_bundle(tmp_path / "again.zip", manifest, PRIVATE, CA, dict(reversed(files.items())))
    assert (tmp_path / "again.zip").read_bytes() == written


def test_a_bundle_is_a_zip_that_unzip_reads(bundle: Path) -> None:
    with ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == CARRIED
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_a_changed_byte_changes_nothing_that_is_read(bundle: Path, written: bytes, manifest: Bundle, data: st.DataObject) -> None:
    """A byte of a date, say, may be another; what is read is then the same. All else is refused."""
    place, byte = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 255))
    bundle.write_bytes(written[:place] + bytes([byte]) + written[place + 1 :])
    try:
        found = opened_bundle(bundle, expect=TOLD, now=NOW)
    except CredentialError:
        return
    changed = contents_of(bundle)
    bundle.write_bytes(written)
    assert (found, changed) == (manifest, contents_of(bundle))


def test_any_changed_byte_of_any_file_in_it_is_refused(bundle: Path, written: bytes) -> None:
    with ZipFile(bundle) as archive:
        places = {info.filename: info.header_offset + 30 + len(info.filename) for info in archive.infolist()}
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    for name, start in places.items():
        for place in {start, start + sizes[name] // 2, start + sizes[name] - 1}:
            bundle.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
            assert refused(bundle).startswith("is not whole: Bad CRC-32 for file ")


def test_a_truncated_bundle_is_refused_wherever_it_ends(bundle: Path, written: bytes) -> None:
    for end in {*range(0, len(written), 97), len(written) - 1}:
        bundle.write_bytes(written[:end])
        assert refused(bundle) == "is not whole: File is not a zip file"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.binary(max_size=200))
@example(b"PK\5\6" + bytes(18))
@example(b"PK\5\6" + b"\xff" * 18)
@example(b"PK\5\6" + bytes(4) + b"\1\0\1\0" + (2**31).to_bytes(4, "little") + bytes(6))
def test_what_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bundle.zip").write_bytes(data)
    refused(tmp_path / "bundle.zip")


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "bundle.zip") == "cannot be read: No such file or directory"
    (tmp_path / "bundle.zip").mkdir()
    assert refused(tmp_path / "bundle.zip") == "cannot be read: Is a directory"


def test_another_consortium_is_refused_and_its_fingerprint_is_not_said(bundle: Path, files: dict[str, Path]) -> None:
    """Somebody in between who swaps the whole bundle for his own cannot have the key that was told by telephone."""
    theirs = manifest_of(files, consortium_key=signed.public_key(OTHER).hex())
    write_bundle(bundle, theirs, OTHER, CA, files)
    assert opened_bundle(bundle, expect=None, now=NOW) == theirs
    assert refused(bundle) == f"is not signed with the key of fingerprint {TOLD}: it was changed, or is another consortium's"
    assert signed.fingerprint(signed.public_key(OTHER)) not in refused(bundle)
    assert refused(bundle, expect="") == "is not signed with the key of fingerprint : it was changed, or is another consortium's"


def test_a_manifest_is_signed_with_the_key_that_it_names(bundle: Path, files: dict[str, Path]) -> None:
    theirs = manifest_of(files, consortium_key=signed.public_key(OTHER).hex())
    contents = contents_of(bundle)
    contents["manifest.json"] = signed.sealed(theirs.canonical(), PRIVATE, purpose=BUNDLE)
    packed(bundle, list(contents.items()))
    assert refused(bundle) == f"consortium_key is {theirs.consortium_key}, not {signed.public_key(PRIVATE).hex()}"


def test_a_bundle_that_has_expired_is_refused_with_both_times(bundle: Path, manifest: Bundle) -> None:
    late = manifest.expires + timedelta(seconds=1)
    assert refused(bundle, now=late) == "expired 2026-12-22 15:00:00 UTC; now is 2026-12-22 15:00:01"


@pytest.mark.parametrize("name", CARRIED[1:])
def test_a_file_that_was_exchanged_is_named_with_both_digests(bundle: Path, name: str) -> None:
    """With a valid checksum of zip's own, and of the same size."""
    contents = contents_of(bundle)
    contents[name] = bytes([contents[name][0] ^ 1]) + contents[name][1:]
    message = refused(packed(bundle, list(contents.items())))
    named = "bases/thorax" if name.startswith("bases/") else name
    assert message.startswith(f"{named}: sha256 is ")
    assert len(message.split(" is ")[1]) == len(", not ") + 2 * 64


@pytest.mark.parametrize("name", CARRIED[1:])
def test_a_file_of_another_size_is_refused_before_it_is_read(bundle: Path, name: str) -> None:
    contents = contents_of(bundle)
    before = len(contents[name])
    contents[name] += b"\0" * 2**17
    message = refused(packed(bundle, list(contents.items())))
    if name == "ca.crt":
        assert message == f"ca.crt: size is {before + 2**17}, more than 65536"
    else:
        total = sum(map(len, BASE_FILES.values())) if name.startswith("bases/") else before
        named = "bases/thorax" if name.startswith("bases/") else name
        assert message == f"{named}: size is {total + 2**17}, not {total}"


@pytest.mark.parametrize("name", CARRIED)
def test_a_file_that_is_missing_is_told(bundle: Path, name: str) -> None:
    contents = contents_of(bundle)
    del contents[name]
    message = refused(packed(bundle, list(contents.items())))
    if name == "manifest.json":
        assert message == "holds no manifest.json of at most 1048576 bytes"
    elif name.startswith("bases/"):
        assert message.startswith("bases/thorax: size is ")
    else:
        assert message == f"holds no {name}"


def test_a_base_whose_files_have_changed_names_is_refused(bundle: Path) -> None:
    contents = contents_of(bundle)
    contents["bases/thorax/other.safetensors"] = contents.pop("bases/thorax/model.safetensors")
    assert refused(packed(bundle, list(contents.items()))).startswith("bases/thorax: sha256 is ")


STRANGERS = [
    "extra.txt",
    "/etc/passwd",
    "../outside",
    "bases/../../outside",
    "bases/thorax/../../../outside.safetensors",
    "bases/thorax/README.md",
    "bases/thorax/sub/model.safetensors",
    "bases/thorax/.hidden.safetensors",
    "bases/thorax/a b.safetensors",
    "bases/other/model.safetensors",
    "bases/thorax/",
    "wheels/",
    "wheels/other-1-py3-none-any.whl",
    "wheels/../ca.crt",
    "./ca.crt",
    "ca.crt/",
    "CA.crt",
    "C:\\outside",
    "x" * 1000,
    "\x1b[2J",
]


@pytest.mark.parametrize("name", STRANGERS)
def test_what_the_manifest_does_not_name_is_refused_by_name(bundle: Path, name: str) -> None:
    message = refused(packed(bundle, [*contents_of(bundle).items(), (name, b"")]))
    assert message.startswith((f"holds {name[:30]}", "holds '\\x1b[2J'"))
    assert message.endswith("which manifest.json does not name")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, 0, stat.S_ISUID | stat.S_IFREG])
@pytest.mark.parametrize("name", ["ca.crt", "bases/thorax/model.safetensors"])
def test_what_is_no_plain_file_is_refused_by_name(bundle: Path, name: str, kind: int) -> None:
    contents = contents_of(bundle)
    odd = plain(name, mode=kind | 0o777)
    message = refused(packed(bundle, [(odd if one == name else one, data) for one, data in contents.items()]))
    assert message == f"{name}: mode is {kind | 0o777:o}, not 100644"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", CARRIED)
def test_a_name_that_is_there_twice_is_refused(bundle: Path, name: str) -> None:
    contents = contents_of(bundle)
    message = refused(packed(bundle, [*contents.items(), (name, contents[name])]))
    assert message == f"holds {name} 2 times"


def test_a_compressed_file_is_refused(bundle: Path) -> None:
    contents = contents_of(bundle)
    with ZipFile(bundle, "w") as archive:
        for name, data in contents.items():
            archive.writestr(plain(name), data, compress_type=zipfile.ZIP_DEFLATED if name.startswith("wheels/") else None)
    assert refused(bundle) == f"wheels/{WHEEL}: compression is 8, not 0"


def directory(data: bytes, name: str) -> int:
    """Where the entry of this name begins in zip's directory: PKWARE's APPNOTE, 4.3.12."""
    return data.rindex(name.encode()) - 46


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, b"\1\0", "flags is 1, not 0"),
        (20, b"\xff\xff\xff\x7f", "stored size is 2147483647, not "),
        (24, b"\xff\xff\xff\x7f", "stored size is "),
        (42, b"\xff\xff\xff\x7f", "begins at byte 2147483647, outside 0 to "),
    ],
    ids=["encrypted", "stored size", "size", "place"],
)
def test_a_directory_that_lies_is_refused(bundle: Path, written: bytes, offset: int, value: bytes, message: str) -> None:
    start = directory(written, "ca.crt") + offset
    bundle.write_bytes(written[:start] + value + written[start + len(value) :])
    assert refused(bundle).startswith(f"ca.crt: {message}")


def test_a_name_that_ends_early_is_refused(bundle: Path, written: bytes) -> None:
    """Readers differ over what a NUL in a name means."""
    data = bytearray(packed(bundle, [*contents_of(bundle).items(), ("extra.crt~evil", b"")]).read_bytes())
    for _ in range(2):
        place = data.index(b"extra.crt~evil")
        data[place : place + 14] = b"extra.crt\0evil"
    bundle.write_bytes(data)
    assert refused(bundle) == "extra.crt: name is 'extra.crt\\x00evil', not extra.crt"


def test_a_bundle_that_hides_something_beside_its_files_is_refused(bundle: Path, written: bytes, manifest: Bundle) -> None:
    bundle.write_bytes(b"\0" * 2**21 + written)
    assert refused(bundle).startswith(f"has {len(written) + 2**21} bytes, and the files in it ")


def test_files_that_share_their_bytes_are_refused(bundle: Path, files: dict[str, Path]) -> None:
    """The same stored bytes given many names make a small bundle large. Here two wheels that are one."""
    wheel = files[WHEEL].read_bytes()
    twin = WHEEL.replace("0.1.0", "0.1.1")
    big = wheel * 3000
    both = tuple(BundledWheel(file=file, sha256=hashlib.sha256(big).hexdigest(), size=len(big)) for file in (WHEEL, twin))
    contents = contents_of(bundle)
    contents["manifest.json"] = signed.sealed(manifest_of(files, wheels=both).canonical(), PRIVATE, purpose=BUNDLE)
    contents |= {f"wheels/{WHEEL}": big, f"wheels/{twin}": b""}
    data = bytearray(packed(bundle, list(contents.items())).read_bytes())
    first, second = directory(data, f"wheels/{WHEEL}"), directory(data, f"wheels/{twin}")
    data[second + 16 : second + 28] = data[first + 16 : first + 28]
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    bundle.write_bytes(data)
    assert refused(bundle).startswith(f"has {len(data)} bytes, and the files in it ")


def test_a_manifest_that_is_too_long_is_not_read(bundle: Path) -> None:
    contents = contents_of(bundle)
    contents["manifest.json"] = b" " * 2**20 + contents["manifest.json"]
    assert refused(packed(bundle, list(contents.items()))) == "holds no manifest.json of at most 1048576 bytes"


def test_a_long_directory_is_not_read(bundle: Path) -> None:
    with ZipFile(bundle, "w") as archive:
        for number in range(5000):
            archive.writestr(plain(f"{number:0200d}"), b"")
    assert "its directory would have 1230000 bytes" in refused(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ca": "0" * 64}, f"ca.crt: sha256 is {hashlib.sha256(CA).hexdigest()}, not {'0' * 64}"),
        ({"consortium_key": "0" * 64}, f"consortium_key is {'0' * 64}, not {signed.public_key(PRIVATE).hex()}"),
        ({"bases": ()}, "files is ['rainhill-0.1.0-py3-none-any.whl', 'thorax'], not ['rainhill-0.1.0-py3-none-any.whl']"),
        ({"wheels": ()}, "not ['thorax']"),
        ({"bases": (BundledBase(name="thorax", sha256="0" * 64, size=5133),)}, f", not {'0' * 64}"),
        ({"bases": (BundledBase(name="thorax", sha256="0" * 64, size=5),)}, "bases/thorax: size is 5133, not 5"),
        ({"wheels": (BundledWheel(file=WHEEL, sha256="0" * 64, size=700),)}, f"{WHEEL}: sha256 is "),
        ({"wheels": (BundledWheel(file=WHEEL, sha256="0" * 64, size=701),)}, f"{WHEEL}: size is 700, not 701"),
    ],
)
def test_nothing_is_written_that_is_not_as_the_manifest_says(
    files: dict[str, Path], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    (tmp_path / "bundle.zip").write_bytes(b"before")
    with pytest.raises(CredentialError) as error:
        write_bundle(tmp_path / "bundle.zip", manifest_of(files, **changes), PRIVATE, CA, files)
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.zip"]
    assert (tmp_path / "bundle.zip").read_bytes() == b"before"


def test_a_base_that_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    files = sources(tmp_path)
    manifest = manifest_of(files)
    (files["thorax"] / "a b.safetensors").write_bytes(b"")
    with pytest.raises(CredentialError, match=r"a b\.safetensors: a name in a bundle is letters"):
        write_bundle(tmp_path / "bundle.zip", manifest, PRIVATE, CA, files)
    shutil.rmtree(files["thorax"])
    with pytest.raises(BaseModelError, match="no .safetensors file there"):
        write_bundle(tmp_path / "bundle.zip", manifest, PRIVATE, CA, files)


def test_what_is_unpacked_already_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    unpack(bundle, tmp_path / "unpacked", expect=TOLD, now=NOW)
    before = sorted((tmp_path / "unpacked").rglob("*"))
    with pytest.raises(FileExistsError, match="is there, and is not an empty folder"):
        unpack(bundle, tmp_path / "unpacked", expect=TOLD, now=NOW)
    assert sorted((tmp_path / "unpacked").rglob("*")) == before


def test_a_full_disk_leaves_nothing_half_unpacked(bundle: Path, tmp_path: Path) -> None:
    """A real one: a file system of its own, smaller than the bundle."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", disk], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        with pytest.raises(OSError, match="No space left on device") as error:
            unpack(bundle, disk / "unpacked", expect=TOLD, now=NOW)
        assert error.value.filename == str(disk / "unpacked")
        assert not list(disk.iterdir())
        with pytest.raises(OSError, match="No space left on device") as error:
            write_bundle(disk / "copy.zip", *again(tmp_path))
        assert error.value.filename == str(disk / "copy.zip")
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def again(folder: Path) -> tuple[Bundle, bytes, bytes, dict[str, Path]]:
    (folder / "sources").mkdir()
    files = sources(folder / "sources")
    (files["thorax"] / "model.safetensors").write_bytes(bytes(2**15))
    size = sum(file.stat().st_size for file in weights.pinned_files(files["thorax"]))
    base = BundledBase(name="thorax", sha256=weights.digest(files["thorax"]), size=size)
    return manifest_of(files, bases=(base,)), PRIVATE, CA, files
