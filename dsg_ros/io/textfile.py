"""Text logs as bytes, plain or compressed: told by their first bytes, never by the suffix alone."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dsg_ros.errors import UserError

_DAMAGED = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
_NAMED = 5  # malformed lines told one by one; the rest only counted


_ZIP = b"PK\x03\x04"
_DECOMPRESS: dict[bytes, Callable[[bytes], bytes]] = {
    b"BZh": bz2.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is one that `read_bytes` decompresses."""
    return head.startswith((_ZIP, *_DECOMPRESS))


def read_bytes(path: Path) -> bytes:
    """The content of ``path``, decompressed if it is bzip2, gzip, xz or a zip with one file; `UserError` otherwise."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise UserError(f"{path}: the file is empty")
    try:
        if data.startswith(_ZIP):
            return _only_member(path, data)
        decompress = next((each for magic, each in _DECOMPRESS.items() if data.startswith(magic)), None)
        return data if decompress is None else decompress(data)
    except _DAMAGED as error:
        raise UserError(f"{path}: compressed file is damaged or cut short ({error}); fetch it again") from error


def _only_member(path: Path, data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # macOS archivers add a __MACOSX folder of resource forks.
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
        if len(names) != 1:
            raise UserError(f"{path}: expected a zip with one file, found {len(names)}: {', '.join(names[:5])}")
        return archive.read(names[0])


class LineErrors:
    """Counts malformed lines and names the first few with file and line."""

    def __init__(self, path: Path, counts: Counter[str], log: logging.Logger) -> None:
        self._path, self._counts, self._log = path, counts, log

    def add(self, line: int, reason: object) -> None:
        """Line ``line`` (from 1) was skipped because of ``reason``."""
        self._counts["malformed_lines"] += 1
        seen = self._counts["malformed_lines"]
        if seen <= _NAMED:
            self._log.warning("%s:%d: line skipped: %s", self._path, line, reason)
        if seen == _NAMED:
            self._log.warning("%s: further malformed lines are only counted", self._path)
