"""Files that are either old or new, never half: atomic writes, checksums, loading that cannot run code."""

from closerlook.files.checksums import digest, sha256
from closerlook.files.disk import append_line, remove_temporaries, set_aside, sync, temporaries, write_bytes, writing
from closerlook.files.formats import (
    read_arrays,
    read_json,
    read_tensors,
    to_json,
    write_arrays,
    write_json,
    write_tensors,
)

__all__ = [
    "append_line", "digest", "read_arrays", "read_json", "read_tensors", "remove_temporaries", "set_aside", "sha256",
    "sync", "temporaries", "to_json", "write_arrays", "write_bytes", "write_json", "write_tensors", "writing",
]  # fmt: skip
