"""The only code that touches the network: published files from a Debian package, or from mirrors."""

import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from closerlook import files
from closerlook.data.checked import published_content
from closerlook.data.lookup import cache, missing
from closerlook.errors import UsageError

COMMAND_SECONDS = 600
MIRROR_SECONDS = 30
T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """A data set of gzip files: its folder's name, SHA-256 by file, the Debian package and the mirrors that have it.

    The checksums are of the uncompressed content: a distribution may compress the files anew.
    """

    name: str
    checksums: Mapping[str, str]
    package: str
    mirrors: tuple[str, ...]
    megabytes: int

    def check(self, file: str, data: bytes, where: str) -> bytes:
        """The uncompressed content of `file` given its bytes.

        Raises
        ------
        UsageError
            Truncated, damaged, or with another checksum; the message has the name, and the checksums found and due.
        """
        return published_content(data, self.checksums[file], where)

    def ways_out(self) -> list[str]:
        """What a user can do when the files are nowhere."""
        return [
            f"on Debian or Ubuntu: apt-get install {self.package}",
            f"put {', '.join(self.checksums)} into a folder and name it: --data-dir FOLDER, or CLOSERLOOK_DATA=FOLDER",
            "use the images that come with scikit-learn: --data digits",
        ]


def fetch_files(published: Published, data_dir: str | Path | None = None) -> Path:
    """Fetch the files into `data_dir` (default: the user's cache); returns the folder.

    First the Debian package, unpacked without root in a temporary folder, then the mirrors, file by file. Every file's
    checksum is verified before it is moved to its place in one step. One line on stderr says what happens.

    Raises
    ------
    DataMissingError
        No way worked; the message lists what was searched, what was tried, and the ways out.
    """
    folder = cache(published.name) if data_dir is None else Path(data_dir)
    print(f"closerlook: fetching {published.name} ({published.megabytes} MB) into {folder}", file=sys.stderr)
    failures = []
    for source, way in {"the Debian package": _from_debian, "mirrors": _from_mirrors}.items():
        try:
            for file, data in way(published):
                files.write_bytes(folder / file, data)
            return folder
        except (OSError, subprocess.SubprocessError, UsageError) as error:
            failures.append(f"{source}: {error}")
    raise missing(published.name, data_dir, published.ways_out(), failures)


def _from_debian(published: Published) -> Iterator[tuple[str, bytes]]:
    """The files of the package, downloaded with apt's own state kept apart from the system's: no root is needed."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise UsageError("there is no apt-get or no dpkg-deb on this machine")
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        _download(published.package, here)
        archive = next(here.glob(f"{published.package}_*.deb"))
        _call(["dpkg-deb", "-x", str(archive), str(here / "unpacked")], here)
        for file in published.checksums:
            data = (here / "unpacked/usr/share/datasets" / published.name / file).read_bytes()
            published.check(file, data, file)
            yield file, data


def _download(package: str, here: Path) -> None:
    """The newest .deb of a package into the folder `here`, which also holds apt's lists and cache."""
    for part in ("lists/partial", "cache/archives/partial"):  # apt does not make them itself
        (here / part).mkdir(parents=True)
    options = [f"Dir::State::lists={here}/lists", f"Dir::Cache={here}/cache"]
    # apt as root would drop to a user who may not enter the temporary folder.
    options += ["APT::Sandbox::User=root", "Acquire::Retries=1", "Acquire::http::Timeout=30"]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    update = _call([*apt, "update"], here, check=False)
    try:
        _call([*apt, "download", package], here)
    except subprocess.CalledProcessError as error:
        # An update that fails in part (one broken repository of several) matters only now.
        raise UsageError(_errors(update.stderr) + _errors(error.stderr)) from error


def _call(command: list[str], folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=check, capture_output=True, text=True, timeout=COMMAND_SECONDS)


def _errors(stderr: str) -> str:
    return " ".join(line for line in stderr.splitlines() if line.startswith(("E:", "W:")))


def _from_mirrors(published: Published) -> Iterator[tuple[str, bytes]]:
    for file in published.checksums:
        yield file, from_any([f"{mirror}/{file}" for mirror in published.mirrors], _checked(published, file))


def _checked(published: Published, file: str) -> Callable[[bytes, str], bytes]:
    def accept(data: bytes, where: str) -> bytes:
        published.check(file, data, where)
        return data

    return accept


def from_any(addresses: Sequence[str], accept: Callable[[bytes, str], T]) -> T:
    """What `accept` makes of the bytes and the address of the first file that it does not refuse.

    Raises
    ------
    UsageError
        No address answered with a file that was accepted; the message has a line for each.
    """
    failures = []
    for address in addresses:
        try:
            with urllib.request.urlopen(address, timeout=MIRROR_SECONDS) as answer:
                data: bytes = answer.read()
            return accept(data, address)
        except (OSError, HTTPException) as error:
            failures.append(f"{address}: {error}")
        except UsageError as error:
            failures.append(str(error))
    raise UsageError("\n".join(failures))
