"""A data set in one gzipped tar file: fetched whole, verified, and only the files that are wanted taken out of it."""

import io
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from closerlook import files
from closerlook.data.checked import published
from closerlook.data.download import from_any
from closerlook.data.lookup import cache, missing
from closerlook.errors import UsageError


@dataclass(frozen=True)
class Archive:
    """The archive `file` with SHA-256 `sha256`, the `members` that are wanted of its only folder, and its addresses."""

    file: str
    sha256: str
    folder: str
    members: tuple[str, ...]
    addresses: tuple[str, ...]
    megabytes: int

    def unpack(self, data: bytes, where: str) -> dict[str, bytes]:
        """Content of the wanted members by name, given the bytes of the whole archive.

        They are read by their known names and nothing is written: what else the archive holds, and under which
        paths, leads nowhere.

        Raises
        ------
        UsageError
            Another checksum; or a member is missing, or is a link or a folder.
        """
        published(data, self.sha256, where)
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
                return {member: _read(tar, f"{self.folder}/{member}") for member in self.members}
        except (tarfile.TarError, KeyError, OSError, EOFError) as error:
            raise UsageError(f"{where} is not the archive {self.file}: {error}") from error

    def ways_out(self) -> list[str]:
        """What a user can do when the files are nowhere."""
        return [
            f"download {self.file} from {self.addresses[-1]} in another way, unpack it and name the folder: "
            "--data-dir FOLDER, or CLOSERLOOK_DATA=FOLDER",
            "use other images: --data fashion, or --data digits, which come with scikit-learn",
        ]


def fetch_archive(archive: Archive, data_dir: str | Path | None = None) -> Path:
    """Fetch the members into `data_dir` (default: the user's cache); returns the folder.

    The checksum of the whole archive is verified before anything is taken out of it, and each file moves to its place
    in one step. One line on stderr says what happens.

    Raises
    ------
    DataMissingError
        No address has the archive; the message lists what was searched, what was tried, and the ways out.
    """
    folder = cache(archive.folder) if data_dir is None else Path(data_dir)
    print(f"closerlook: fetching {archive.file} ({archive.megabytes} MB) into {folder}", file=sys.stderr)
    try:
        contents = from_any(archive.addresses, archive.unpack)
    except UsageError as error:
        raise missing(archive.folder, data_dir, archive.ways_out(), [str(error)]) from None
    for member, content in contents.items():
        files.write_bytes(folder / member, content)
    return folder


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise tarfile.TarError(f"{name} is no file in it")
    return content.read()
