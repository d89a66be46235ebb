"""Fetching, with apt, dpkg and the mirrors replaced: nothing here touches the network."""

import gzip
import hashlib
import io
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from closerlook.data import download
from closerlook.data.download import Published, fetch_files
from closerlook.errors import DataMissingError

CONTENT = {"images.gz": b"some images", "labels.gz": b"some labels"}
MIRRORS = ("https://first", "http://second")
SET = Published(
    "small-set",
    {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
    "set-data",
    MIRRORS,
    1,
)


class Apt:
    """Plays apt-get and dpkg-deb; what is asked of it is kept."""

    def __init__(self, content: dict[str, bytes], broken: str = ""):
        self.content, self.broken, self.commands = content, broken, []

    def __call__(self, command: list[str], cwd: Path, check: bool, **_) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        verb = command[-2] if command[-2] == "download" else command[1] if command[0] == "dpkg-deb" else command[-1]
        if verb == self.broken:
            error = f"noise\nE: {verb} broke\n"
            if check:
                raise subprocess.CalledProcessError(100, command, "", error)
            return subprocess.CompletedProcess(command, 100, "", error)
        if verb == "update":
            assert (cwd / "lists/partial").is_dir()
            assert (cwd / "cache/archives/partial").is_dir()
        if verb == "download":
            (cwd / "set-data_1.0_all.deb").touch()
        if verb == "-x":
            folder = Path(command[3]) / "usr/share/datasets/small-set"
            folder.mkdir(parents=True)
            for name, content in self.content.items():
                (folder / name).write_bytes(gzip.compress(content))
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Put a fake apt (None: not installed) and fake mirrors in place; gives the list of addresses asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CLOSERLOOK_DATA", raising=False)

    def prepare(apt: Apt | None, mirrored: dict[str, bytes]) -> list[str]:
        asked = []

        def urlopen(address: str, timeout: float) -> io.BytesIO:
            asked.append(address)
            if address not in mirrored:
                raise urllib.error.URLError("unreachable")
            return io.BytesIO(mirrored[address])

        monkeypatch.setattr(download.shutil, "which", lambda name: None if apt is None else f"/bin/{name}")
        monkeypatch.setattr(download.subprocess, "run", apt)
        monkeypatch.setattr(download.urllib.request, "urlopen", urlopen)
        return asked

    return prepare


def mirrored(mirror: str, content: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{mirror}/{name}": gzip.compress(data) for name, data in content.items()}


def assert_whole(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(CONTENT)
    for name, content in CONTENT.items():
        assert gzip.decompress((folder / name).read_bytes()) == content


def test_the_package_is_unpacked_without_touching_the_system(play, tmp_path: Path, capsys) -> None:
    apt = Apt(CONTENT)
    asked = play(apt, {})
    folder = fetch_files(SET)
    assert folder == tmp_path / "cache/closerlook/small-set"
    assert_whole(folder)
    assert asked == []
    assert capsys.readouterr().err == f"closerlook: fetching small-set (1 MB) into {folder}\n"
    for command in apt.commands:
        private = [word for word in command if "/lists" in word or "/cache" in word]
        assert command[0] == "dpkg-deb" or len(private) == 2


def test_an_update_that_fails_in_part_does_not_matter(play, tmp_path: Path) -> None:
    play(Apt(CONTENT, broken="update"), {})
    assert_whole(fetch_files(SET, tmp_path / "here"))


@pytest.mark.parametrize(
    "apt", [None, Apt(CONTENT, broken="download"), Apt(CONTENT, broken="-x"), Apt({**CONTENT, "labels.gz": b"others"})]
)
def test_mirrors_follow_when_the_package_fails(play, apt: Apt | None, tmp_path: Path) -> None:
    play(apt, mirrored(MIRRORS[1], CONTENT))
    assert_whole(fetch_files(SET, tmp_path / "here"))


def test_each_file_comes_from_the_first_mirror_that_has_it_whole(play, tmp_path: Path) -> None:
    wrong = mirrored(MIRRORS[0], {**CONTENT, "labels.gz": b"an error page"})
    asked = play(None, {**wrong, **mirrored(MIRRORS[1], CONTENT)})
    assert_whole(fetch_files(SET, tmp_path / "here"))
    assert asked == ["https://first/images.gz", "https://first/labels.gz", "http://second/labels.gz"]


def test_when_nothing_works_all_is_said_and_nothing_wrong_is_kept(play, tmp_path: Path) -> None:
    apt = Apt(CONTENT, broken="download")
    play(apt, {"https://first/images.gz": b"not gzip"})
    with pytest.raises(DataMissingError) as caught:
        fetch_files(SET)
    for part in (
        f"no small-set files in\n  {tmp_path}/cache/closerlook/small-set",
        "the Debian package: E: download broke",
        "mirrors: https://first/images.gz is damaged",
        "  http://second/images.gz: <urlopen error unreachable>",
        "apt-get install set-data",
        "images.gz, labels.gz",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "cache").exists()
