"""Files that are the published ones, byte for byte, or an error that says what was found instead."""

import hashlib
import zlib

from closerlook.errors import UsageError

GZIP = 16 + zlib.MAX_WBITS


def published(data: bytes, due: str, where: str) -> bytes:
    """The bytes themselves when their SHA-256 is `due`; `where` is for messages.

    Raises
    ------
    UsageError
        They have another checksum.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != due:
        raise UsageError(f"{where} is not the published file: its SHA-256 is {found}, not {due}")
    return data


def published_content(data: bytes, due: str, where: str) -> bytes:
    """What a gzip file of bytes `data` holds, when the SHA-256 of that is `due`.

    The checksum is of the uncompressed content: a distribution may compress the files anew.

    Raises
    ------
    UsageError
        Truncated, damaged, or with another checksum; the message has the checksums found and due.
    """
    try:
        content = inflate(data, where)
    except UsageError as error:
        found = hashlib.sha256(data).hexdigest()
        raise UsageError(f"{error} (SHA-256 of the file {found}; its content should have {due})") from error
    return published(content, due, f"the content of {where}")


def inflate(data: bytes, where: str) -> bytes:
    """What a gzip file of bytes `data` holds.

    Raises
    ------
    UsageError
        The file is truncated, or damaged so that its CRC does not fit.
    """
    inflater = zlib.decompressobj(GZIP)
    try:
        inflated = inflater.decompress(data)
    except zlib.error as error:
        raise UsageError(f"{where} is damaged: {error}") from error
    if not inflater.eof:
        raise UsageError(f"{where} is truncated: its {len(data)} bytes are not a whole gzip file")
    return inflated
