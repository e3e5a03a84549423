"""The lines of a pose graph file as arrays, by tag: converted in bulk, and told by number where one is wrong."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dsg_ros.errors import UserError
from dsg_ros.io import posegraph_checks as checks
from dsg_ros.io.posegraph import Floats, Indices
from dsg_ros.io.posegraph_tags import TAGS, TORO_TO_ROWS, Role, Tag
from dsg_ros.io.textfile import read_bytes

_log = logging.getLogger(__name__)
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r")


@dataclass(frozen=True)
class Lines:
    """All lines of one tag, in file order.

    line: (n,) from 1
    ids: (n, `tag.ids`); of FIX lines one row an id
    values: (n, 7) poses or (n, 3) points; quaternions as they stand
    triangles: (n, `tag.triangle`) upper triangles of the information matrices, by rows
    """

    tag: Tag
    line: Indices
    ids: Indices
    values: Floats
    triangles: Floats


@dataclass(frozen=True)
class Unknown:
    """Lines of tags that this program does not know, and whether the last line has no end.

    lines: where each tag stands, numbers from 1
    vertices: ids that a line of an unknown ``VERTEX...`` tag declares: the first such line, and its tag
    """

    lines: dict[str, list[int]] = field(default_factory=dict)
    vertices: dict[int, tuple[int, str]] = field(default_factory=dict)
    unended: bool = False

    @property
    def counts(self) -> Counter[str]:
        """How many lines a tag has."""
        return Counter({tag: len(at) for tag, at in self.lines.items()})

    def add(self, number: int, words: list[bytes]) -> None:
        """Take line ``number``, of these words, the tag first."""
        tag = words[0].decode(errors="backslashreplace")
        self.lines.setdefault(tag, []).append(number)
        if tag.startswith("VERTEX") and len(words) > 1 and _is_id(words[1]):
            self.vertices.setdefault(int(words[1]), (number, tag))


def read_lines(path: Path) -> tuple[list[Lines], Unknown]:
    """Every known line of a file, by tag, and what lines of other tags there are.

    `UserError` names file and line of one that is cut short, or holds what is no (finite) number, or a full information
    matrix that is not symmetric; and the file where it is empty or binary.
    """
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    if len(data.translate(None, _CONTROL)) < len(data):
        place = next(place for place, byte in enumerate(data) if byte in _CONTROL)
        line = data.count(b"\n", 0, place) + 1
        raise UserError(f"{path}:{line}: a binary file (byte 0x{data[place]:02x} in it); expected g2o or TORO text")
    groups, unknown = _grouped(path, data)
    if data and not data.endswith((b"\n", b"\r")):
        unknown = replace(unknown, unended=True)
        _log.warning("%s: its last line has no end: if the file was cut there, a number may have lost digits", path)
    if unknown.lines:
        listed = ", ".join(f"{tag} ({len(at)}, first in line {at[0]})" for tag, at in unknown.lines.items())
        _log.warning("%s: lines with tags that this program does not know are left out: %s", path, listed)
    return [each.converted(path) for each in groups.values()], unknown


def _grouped(path: Path, data: bytes) -> tuple[dict[bytes, _Words], Unknown]:
    """The file's words by tag, and the lines of unknown tags."""
    groups: dict[bytes, _Words] = {}
    unknown = Unknown()
    for number, line in enumerate(data.splitlines(), 1):
        parts = line.split(None, 1)
        if not parts:
            continue
        group = groups.get(parts[0])
        if group is None:
            if parts[0].startswith(b"#"):
                continue
            if parts[0] not in TAGS:
                unknown.add(number, line.split(None, 2)[:2])
                continue
            group = groups[parts[0]] = _Words(TAGS[parts[0]])
        words = parts[1].split(None, group.splits) if len(parts) > 1 else []
        if not group.add(number, words):
            raise UserError(f"{path}:{number}: {_wrong_length(group.tag, len(line.split()))}")
    return groups, unknown


def _wrong_length(tag: Tag, words: int) -> str:
    content = [f"{tag.ids} id{'s' * (tag.ids > 1)}"]
    content += [f"{tag.values} values"] * (tag.values > 0)
    content += [f"the {tag.triangle} numbers of an information matrix's upper triangle"] * (tag.matrix > 0)
    problem = f"{tag.name} is followed by {words - 1} words instead of {tag.lengths[0] - 1} ({', '.join(content)})"
    return problem + (": is the line cut short?" if words < tag.lengths[0] else "")


@dataclass
class _Words:
    """What follows the tag in all lines of one tag: ``ids`` and ``numbers`` flat, ``matrix`` (n,) indices in ``texts``.

    Many files give all edges the same information matrix: its text is converted once.
    """

    tag: Tag
    lines: list[int] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)
    matrix: list[int] = field(default_factory=list)
    texts: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.border = self.tag.ids + self.tag.values
        self.splits = self.border if self.tag.matrix else -1

    def add(self, line: int, words: list[bytes]) -> bool:
        """Take a line's words, the text of its matrix being the last; whether there are as many as there must be."""
        if self.tag.role is Role.FIX:
            self.lines += [line] * len(words)
            self.ids += words
            return bool(words)
        if len(words) != self.border + (self.tag.matrix > 0):
            return False
        self.lines.append(line)
        self.ids += words[: self.tag.ids]
        self.numbers += words[self.tag.ids : self.border]
        if self.tag.matrix:
            known = len(self.texts)
            place = self.texts.setdefault(words[-1], known)
            self.matrix.append(place)
            return place < known or 1 + self.border + len(words[-1].split()) in self.tag.lengths
        return True

    def converted(self, path: Path) -> Lines:
        """The numbers."""
        tag, line = self.tag, np.array(self.lines, np.int64)
        ids = _integers(path, tag, self.lines, self.ids).reshape(len(line), tag.ids)
        values = _floats(path, tag, self.lines, self.numbers).reshape(len(line), tag.values)
        if tag.role is Role.FIX:
            return Lines(tag, line, ids, values, values)
        return Lines(tag, line, ids, tag.decoded(values), self._triangles(path)[self.matrix])

    def _triangles(self, path: Path) -> Floats:
        """Upper triangles by rows of the different matrices."""
        out = np.empty((len(self.texts), self.tag.triangle))
        seen = np.unique(self.matrix, return_index=True)[1]
        lines = [self.lines[k] for k in seen]
        words = [text.split() for text in self.texts]
        for length in {len(each) for each in words}:
            chosen = [k for k, each in enumerate(words) if len(each) == length]
            at = [lines[k] for k in chosen]
            numbers = _floats(path, self.tag, at, [word for k in chosen for word in words[k]]).reshape(-1, length)
            if length != self.tag.triangle:
                numbers = _halves(path, self.tag, at, numbers)
            elif self.tag.toro and self.tag.planar:
                numbers = numbers[:, TORO_TO_ROWS]
            out[chosen] = numbers
        return out


def _halves(path: Path, tag: Tag, line: Sequence[int], numbers: Floats) -> Floats:
    """Upper triangles of full matrices, which must be symmetric."""
    full = numbers.reshape(-1, tag.matrix, tag.matrix)
    wrong = checks.asymmetric(full)
    if len(wrong):
        matrix = full[wrong[0]]
        i, j = divmod(int(np.argmax(np.abs(matrix - matrix.T))), tag.matrix)
        raise UserError(
            f"{path}:{line[wrong[0]]}: {tag.name}: the information matrix is not symmetric: "
            f"entry {i + 1} {j + 1} is {matrix[i, j]:.17g}, entry {j + 1} {i + 1} is {matrix[j, i]:.17g}"
        )
    rows, columns = np.triu_indices(tag.matrix)
    return full[:, rows, columns]


def _integers(path: Path, tag: Tag, lines: Sequence[int], words: list[bytes]) -> Indices:
    """The words as vertex ids, as many a line on each of ``lines``."""
    try:
        if b"_" not in b"".join(words):  # Python would read 1_0 as 10
            return np.array(list(map(int, words)), np.int64)
    except (ValueError, OverflowError):
        pass  # told below, with the line
    wrong = next(k for k, word in enumerate(words) if not _is_id(word))
    raise UserError(f"{_place(path, tag, lines, words, wrong)} is no vertex id (a whole number)")


def _floats(path: Path, tag: Tag, lines: Sequence[int], words: list[bytes]) -> Floats:
    """The words as finite numbers, as many a line on each of ``lines``."""
    try:
        out = np.fromiter(map(float, words), float, len(words))
        plain = b"_" not in b"".join(words)
    except ValueError:
        plain = False
    if not plain:
        wrong = next(k for k, word in enumerate(words) if not _is_number(word))
        raise UserError(f"{_place(path, tag, lines, words, wrong)} is not a number")
    infinite = np.flatnonzero(~np.isfinite(out))
    if len(infinite):
        raise UserError(f"{_place(path, tag, lines, words, int(infinite[0]))} is not finite")
    return out


def _place(path: Path, tag: Tag, lines: Sequence[int], words: list[bytes], k: int) -> str:
    return f"{path}:{lines[k * len(lines) // len(words)]}: {tag.name}: {words[k].decode(errors='backslashreplace')!r}"


def _is_id(word: bytes) -> bool:
    return re.fullmatch(rb"[+-]?\d{1,19}", word) is not None and -(2**63) <= int(word) < 2**63


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word
