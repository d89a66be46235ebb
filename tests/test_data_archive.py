"""Data sets in one archive: from a server on this machine, verified, taken apart without following paths."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from closerlook.data import cifar, fetch, load
from closerlook.data.archive import Archive, fetch_archive
from closerlook.data.cifar import CIFAR10, CIFAR100
from closerlook.data.registry import SOURCES
from closerlook.errors import DataMissingError, UsageError
from test_data_cifar import write

CONTENT = {"train": b"images to train on", "test": b"images to test on"}


def packed(content: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """A gzipped tar file with `content` in the folder ``set``, and other members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(f"set/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in others:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def archive(data: bytes, *addresses: str) -> Archive:
    return Archive("set.tar.gz", hashlib.sha256(data).hexdigest(), "set", ("train", "test"), addresses, 1)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home, no system folders, no proxy between us and our own server."""
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("CLOSERLOOK_DATA", "XDG_DATA_DIRS", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server on this machine, and the folder that it serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_the_first_address_that_has_the_archive_whole_is_taken(server, tmp_path: Path, capsys) -> None:
    address, served = server
    data = packed({**CONTENT, "batches.meta": b"not wanted"})
    (served / "good.tar.gz").write_bytes(data)
    (served / "cut.tar.gz").write_bytes(data[:-5])
    wanted = archive(data, f"{address}/none.tar.gz", f"{address}/cut.tar.gz", f"{address}/good.tar.gz")
    folder = fetch_archive(wanted)
    assert folder == tmp_path / "cache/closerlook/set"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert capsys.readouterr().err == f"closerlook: fetching set.tar.gz (1 MB) into {folder}\n"
    assert fetch_archive(wanted, tmp_path / "here") == tmp_path / "here"
    assert (tmp_path / "here/train").read_bytes() == CONTENT["train"]


def test_when_no_address_has_it_all_is_said_and_nothing_is_kept(server, tmp_path: Path) -> None:
    address, served = server
    (served / "page.tar.gz").write_bytes(b"<html>an error page</html>")
    wanted = archive(packed(CONTENT), f"{address}/none.tar.gz", f"{address}/page.tar.gz", "http://127.0.0.1:1/x.tar.gz")
    with pytest.raises(DataMissingError) as caught:
        fetch_archive(wanted)
    for part in (
        f"no set files in\n  {tmp_path}/cache/closerlook/set",
        f"fetching failed:\n  {address}/none.tar.gz: HTTP Error 404",
        f"\n  {address}/page.tar.gz is not the published file: its SHA-256 is ",
        "\n  http://127.0.0.1:1/x.tar.gz: <urlopen error ",
        "ways out:\n  download set.tar.gz from http://127.0.0.1:1/x.tar.gz in another way, unpack it",
        "--data fashion",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_other_members_lead_nowhere(server, tmp_path: Path) -> None:
    address, served = server
    outside = [tarfile.TarInfo(name) for name in ("../escaped", str(tmp_path / "absolute"), "set/../../escaped")]
    link = tarfile.TarInfo("set/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../.."
    data = packed(CONTENT, *outside, link)
    (served / "set.tar.gz").write_bytes(data)
    before = set(tmp_path.rglob("*"))
    folder = fetch_archive(archive(data, f"{address}/set.tar.gz"))
    made = {path for path in set(tmp_path.rglob("*")) - before if path.is_file() or path.is_symlink()}
    assert made == {folder / "train", folder / "test"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_wanted_member_that_is_no_file_is_refused(kind: bytes) -> None:
    member = tarfile.TarInfo("set/test")
    member.type, member.linkname = kind, "set/train"
    data = packed({"train": CONTENT["train"]}, member)
    with pytest.raises(UsageError, match=r"where is not the archive set\.tar\.gz: set/test is no file in it"):
        archive(data).unpack(data, "where")


# Names of their own: gzip notes the time, so the bytes differ from process to process.
@pytest.mark.parametrize(
    "data", [b"", b"no archive", packed({}), packed(CONTENT)[:40]], ids=["empty", "text", "no members", "cut short"]
)
def test_what_is_not_that_archive_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"where is not the archive set\.tar\.gz: "):
        archive(data).unpack(data, "where")
    with pytest.raises(UsageError, match="where is not the published file: its SHA-256 is"):
        archive(packed(CONTENT)).unpack(data, "where")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_fetched_once_and_only_when_it_is_nowhere(name: str, server, tmp_path: Path, monkeypatch) -> None:
    address, served = server
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    inside = write(kind, tmp_path / "made") / kind.archive.folder
    with tarfile.open(served / "it.tar.gz", "w:gz") as tar:
        tar.add(inside, kind.archive.folder)
    digest = hashlib.sha256((served / "it.tar.gz").read_bytes()).hexdigest()
    ours = replace(kind, archive=replace(kind.archive, sha256=digest, addresses=(f"{address}/it.tar.gz",)))
    monkeypatch.setattr(cifar, name.upper(), ours)
    with pytest.raises(DataMissingError):
        load(name, data_dir=tmp_path / "empty")
    assert not (tmp_path / "cache").exists()
    source = load(name)
    assert source.test_inputs.equal(load(name, data_dir=tmp_path / "made").test_inputs)
    (served / "it.tar.gz").unlink()
    assert load(name).train_targets.equal(source.train_targets)
    assert fetch(name) == tmp_path / "cache/closerlook" / kind.archive.folder
    assert SOURCES[name].fetcher is not None


def test_the_official_archives_are_pinned() -> None:
    """The checksums in public use; both addresses of the university stay the last resort."""
    for kind, start in ((CIFAR10, "6d958be074577803"), (CIFAR100, "85cd44d02ba64377")):
        assert kind.archive.sha256.startswith(start)
        assert len(kind.archive.sha256) == 64
        assert kind.archive.addresses[-1] == f"https://www.cs.toronto.edu/~kriz/{kind.archive.file}"
        assert all(address.startswith("https://") for address in kind.archive.addresses)
