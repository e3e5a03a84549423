"""What can still be read of bags that end in the middle: a walk from record to record, without the index at the end.

Formats: http://wiki.ros.org/Bags/Format/2.0 and https://mcap.dev/spec.  sqlite3 needs no walk: its pages are read in
order until one is missing.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import mmap
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.frame


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic as its bag describes it; ``encoding`` of the ``definition`` is ros1msg, ros2msg, ros2idl or ""."""

    topic: str
    msgtype: str
    encoding: str
    definition: str
    latched: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """Where and why the walk ended."""

    reason: str


Item = tuple[Channel, int, bytes] | Damage
"""A message (its channel, bag time [ns], raw data), or the end of what can be read."""


def walk(path: Path, kind: str) -> Iterator[Item]:
    """Messages of a bag of ``kind`` ("ROS 1 bag", "mcap bag", "sqlite3 bag") in file order; a `Damage` last if it is
    cut short.
    """
    walker: Callable[[Path], Iterator[Item]] = {"ROS 1 bag": _ros1, "mcap bag": _mcap, "sqlite3 bag": _sqlite}[kind]
    return walker(path)


class _Cut(Exception):
    """The data ends inside a record."""


class _Buffer:
    """Sequential reads that raise `_Cut` at the end instead of returning less."""

    def __init__(self, data: bytes | mmap.mmap, position: int = 0) -> None:
        self._data, self.position = data, position

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise _Cut(f"{end - len(self._data)} bytes missing at offset {self.position}")
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def rest(self, size: int) -> bytes:
        """Up to ``size`` bytes: an uncompressed chunk that is cut short still holds whole messages."""
        piece = self._data[self.position : self.position + size]
        self.position += size
        return piece

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def sized(self, layout: str) -> bytes:
        return self.take(self.unpack(layout)[0])

    @property
    def done(self) -> bool:
        return self.position >= len(self._data)


def _ros1(path: Path) -> Iterator[Item]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield from _ros1_records(_Buffer(data, data.find(b"\n") + 1), {})


def _ros1_records(buffer: _Buffer, channels: dict[int, Channel]) -> Iterator[Item]:
    while not buffer.done:
        try:
            header = _ros1_header(buffer.sized("<I"))
            operation = header["op"][0]
            if operation == 0x05:
                data = buffer.rest(buffer.unpack("<I")[0])
                yield from _ros1_chunk(header["compression"], data, channels)
                continue
            data = buffer.sized("<I")
            if operation == 0x07:
                channels[_uint32(header["conn"])] = _ros1_channel(header["topic"], _ros1_header(data))
            elif operation == 0x02:
                seconds, nanoseconds = struct.unpack("<II", header["time"])
                yield channels[_uint32(header["conn"])], seconds * 1_000_000_000 + nanoseconds, data
        except Exception as error:  # noqa: BLE001  damaged bytes raise anything, down to the decompressors' own errors
            yield Damage(f"near byte {buffer.position}: {error}")
            return


def _ros1_chunk(compression: bytes, data: bytes, channels: dict[int, Channel]) -> Iterator[Item]:
    decompress = {b"none": bytes, b"bz2": bz2.decompress, b"lz4": lz4.frame.decompress}[compression]
    yield from _ros1_records(_Buffer(decompress(data)), channels)


def _ros1_header(data: bytes) -> dict[str, bytes]:
    buffer, fields = _Buffer(data), {}
    while not buffer.done:
        name, _, value = buffer.sized("<I").partition(b"=")
        fields[name.decode()] = value
    return fields


def _ros1_channel(topic: bytes, header: dict[str, bytes]) -> Channel:
    package, _, name = header["type"].decode().partition("/")
    latched = header.get("latching") == b"1"
    return Channel(topic.decode(), f"{package}/msg/{name}", "ros1msg", header["message_definition"].decode(), latched)


def _uint32(value: bytes) -> int:
    return int(struct.unpack("<I", value)[0])


def _mcap(path: Path) -> Iterator[Item]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield from _mcap_records(_Buffer(data, 8), {}, {})


def _mcap_records(
    buffer: _Buffer, schemas: dict[int, tuple[str, str, str]], channels: dict[int, Channel]
) -> Iterator[Item]:
    try:
        while not buffer.done:
            operation, size = buffer.unpack("<BQ")
            if operation in (0x02, 0x0F):  # footer, end of data
                return
            record = _Buffer(buffer.rest(size) if operation == 0x06 else buffer.take(size))
            if operation == 0x03:
                (key,) = record.unpack("<H")
                name, encoding, text = (record.sized("<I").decode() for _ in range(3))
                schemas[key] = (name, encoding, text)
            elif operation == 0x04:
                key, schema = record.unpack("<HH")
                msgtype, encoding, definition = schemas.get(schema, ("", "", ""))
                channels[key] = Channel(record.sized("<I").decode(), msgtype, encoding, definition)
            elif operation == 0x05:
                key, _, time, _ = record.unpack("<HIQQ")
                yield channels[key], time, record.take(size - 22)
            elif operation == 0x06:
                record.unpack("<QQQI")
                compression, data = record.sized("<I").decode(), record.rest(record.unpack("<Q")[0])
                decompress = {"": bytes, "lz4": lz4.frame.decompress, "zstd": _unzstd}[compression]
                yield from _mcap_records(_Buffer(decompress(data)), schemas, channels)
    except Exception as error:  # noqa: BLE001  as above
        yield Damage(f"near byte {buffer.position}: {error}")


def _unzstd(data: bytes) -> bytes:
    # Python 3.14 has zstd itself; before, rosbags brings along backports.zstd, and until 0.10 zstandard.
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            return bytes(importlib.import_module(name).decompress(data))
    raise RuntimeError("no zstd library is installed; `pip install backports.zstd`")


def _sqlite(path: Path) -> Iterator[Item]:
    with tempfile.TemporaryDirectory(prefix="dsg_ros-") as folder:
        # SQLite refuses a file shorter than its header says: on a copy, holes stand in for the lost pages.
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with copy.open("r+b") as file:
            header = file.read(32)
            page = int.from_bytes(header[16:18], "big")
            pages = int.from_bytes(header[28:32], "big")
            file.truncate(max(path.stat().st_size, (65536 if page == 1 else page) * pages))
        yield from _sqlite_rows(copy)


def _sqlite_rows(path: Path) -> Iterator[Item]:
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        definitions: dict[str, tuple[str, str]] = {}
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'").fetchone():
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {name: (encoding, text) for name, encoding, text in database.execute(query)}
        channels = {
            key: Channel(topic, msgtype, *definitions.get(msgtype, ("", "")))
            for key, topic, msgtype in database.execute("SELECT id, name, type FROM topics")
        }
        # By row, not by the index on time, whose pages may be among the lost ones.
        rows = database.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id")
        for key, time, data in rows:
            yield channels[key], time, data
    except (sqlite3.Error, KeyError) as error:
        yield Damage(str(error))
    finally:
        database.close()
