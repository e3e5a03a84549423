"""Bags as topics and raw messages, ROS 1 or ROS 2, whole or cut short, without ROS (through the rosbags package)."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag1, ConnectionExtRosbag2, MessageDefinitionFormat, Qos
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dsg_ros.errors import UserError
from dsg_ros.io import salvage
from dsg_ros.io.kinds import MCAP_MAGIC, bag_kind

_log = logging.getLogger(__name__)

_SUFFIXES = {"ROS 1 bag": ".bag", "mcap bag": ".mcap", "sqlite3 bag": ".db3"}
_IDL_RULE = "=" * 80 + "\n"


@dataclass(frozen=True)
class Topic:
    """One topic of a bag; ``count`` is the number of messages the bag announces.  ``qos`` may be empty (not
    recorded).
    """

    name: str
    msgtype: str
    count: int
    qos: tuple[Qos, ...] = ()
    latched: bool = False


class RawBag:
    """A bag's topics and messages, opened for reading; a context manager.

    A bag that was cut short is read as far as it goes: `damage` then says why, and ``counts["messages_unreadable"]``
    (where the bag still says how many there were) and the log tell what is missing.  Raises `UserError` for anything
    that is no bag.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        self.counts: Counter[str] = Counter()
        self.topics: list[Topic] = []
        self._stack = ExitStack()
        self._reader: Reader1 | Reader2 | None = None
        self._connections: dict[tuple[int, int], Topic] = {}
        self.kind, self._files = _identify(path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RawBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        with suppress(Exception):  # a half-open damaged bag
            self._stack.close()

    @property
    def ros1(self) -> bool:
        return self.kind == "ROS 1 bag"

    def find(self, msgtype: str) -> list[Topic]:
        """Topics of a type, e.g. ``nav_msgs/msg/Odometry``, that have messages, in the bag's order."""
        return [topic for topic in self.topics if topic.msgtype == msgtype and topic.count]

    def messages(self, topics: Collection[Topic] | None = None) -> Iterator[tuple[Topic, int, bytes]]:
        """``(topic, bag time [ns], raw data)`` of all topics or some, in order of bag time (file order if cut
        short).
        """
        wanted = set(self.topics if topics is None else topics)
        if self._reader is None:
            yield from self._salvaged(wanted)
            return
        connections = [c for c in self._reader.connections if self._connections[c.id, id(c.owner)] in wanted]
        if not connections:
            return
        read, expected = 0, sum(topic.count for topic in wanted)
        try:
            for connection, stamp, data in self._reader.messages(connections=connections):
                yield self._connections[connection.id, id(connection.owner)], stamp, data
                read += 1
        except Exception as error:  # noqa: BLE001  damaged bytes raise anything, down to the decompressors' own errors
            self.counts["messages_unreadable"] = expected - read
            self.damage = str(error)
            _log.warning("%s: damaged after %d of %d messages: %s", self.path, read, expected, error)

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """The message; `ValueError` where the bytes do not fit the type."""
        try:
            if self.ros1:
                return self.typestore.deserialize_ros1(data, msgtype)
            return self.typestore.deserialize_cdr(data, msgtype)
        except Exception as error:  # generated decoders fail in whatever way the bytes are wrong
            raise ValueError(f"a {msgtype} of {len(data)} bytes cannot be decoded: {error}") from error

    def _open(self) -> None:
        if cut := next((file for file in self._files if file.suffix == ".mcap" and not _ends_whole(file)), None):
            # Asked to open it, rosbags before 0.11.9 would leave the file open behind its error.
            self._salvage(ValueError(f"the end of {cut.name} is missing"))
            return
        reader: Reader1 | Reader2 = Reader1(self.path) if self.ros1 else Reader2(self.path)
        try:
            reader.open()
        except Exception as error:  # noqa: BLE001  as above
            self._salvage(error)
            return
        self._reader = reader
        self._stack.callback(reader.close)
        definitions = []
        merged: dict[tuple[str, str], Topic] = {}
        for connection in reader.connections:
            topic = _topic(connection)
            key = (topic.name, topic.msgtype)  # a ROS 1 topic has one connection a publisher
            before = merged.get(key)
            count = topic.count + (before.count if before else 0)
            latched = topic.latched or bool(before and before.latched)
            merged[key] = Topic(topic.name, topic.msgtype, count, topic.qos, latched)
            encoding = {MessageDefinitionFormat.MSG: "msg", MessageDefinitionFormat.IDL: "idl"}.get(
                connection.msgdef.format, ""
            )
            definitions.append((connection.msgtype, encoding, connection.msgdef.data))
        self.topics = list(merged.values())
        self._connections = {
            (connection.id, id(connection.owner)): merged[connection.topic, connection.msgtype]
            for connection in reader.connections
        }
        self.typestore = self._typestore(definitions)

    def _salvage(self, error: BaseException) -> None:
        """Look through a bag whose index cannot be read, counting what is there."""
        found: Counter[salvage.Channel] = Counter()
        self.damage = str(error) or type(error).__name__
        for item in (item for file in self._files for item in salvage.walk(file, self.kind)):
            if isinstance(item, salvage.Damage):
                self.damage = f"{self.damage} {item.reason}"
            else:
                found[item[0]] += 1
        if not found:
            raise UserError(f"{self.path}: no message can be read from this {self.kind}: {self.damage}") from error
        total = sum(found.values())
        _log.warning("%s: the %s is cut short (%s); %d messages can be read", self.path, self.kind, self.damage, total)
        self.counts["bag_cut_short"] = 1
        self.topics = [Topic(c.topic, c.msgtype, n, latched=c.latched) for c, n in found.items()]
        self.typestore = self._typestore(
            [(c.msgtype, c.encoding.removeprefix("ros2").removeprefix("ros1"), c.definition) for c in found]
        )

    def _salvaged(self, wanted: set[Topic]) -> Iterator[tuple[Topic, int, bytes]]:
        by_name = {(topic.name, topic.msgtype): topic for topic in wanted}
        for file in self._files:
            for item in salvage.walk(file, self.kind):
                if not isinstance(item, salvage.Damage):
                    channel, stamp, data = item
                    topic = by_name.get((channel.topic, channel.msgtype))
                    if topic is not None:
                        yield topic, stamp, data

    def _typestore(self, definitions: list[tuple[str, str, str]]) -> Typestore:
        """The types as the bag defines them; the standard ones of the distribution for those it does not define."""
        types: dict[str, Any] = {}
        for msgtype, encoding, text in definitions:
            try:
                if encoding == "msg":
                    types.update(get_types_from_msg(text, msgtype))
                elif encoding == "idl":
                    for part in text.split(_IDL_RULE):
                        body = part.partition("\n")[2] if part.startswith("IDL: ") else part
                        if body.strip():
                            types.update(get_types_from_idl(body))
            except (TypesysError, ValueError, KeyError) as error:
                self.counts["types_undefined"] += 1
                _log.warning("%s: the definition of %s cannot be read: %s", self.path, msgtype, error)
        store = get_typestore(Stores.EMPTY)
        if any(msgtype not in types for msgtype, _, _ in definitions):
            # Old bags define nothing: the distribution's own types then, and of the bag's those it does not know.
            store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_JAZZY)
            types = {name: fields for name, fields in types.items() if name not in store.fielddefs}
        store.register(types)
        return store


def _ends_whole(mcap: Path) -> bool:
    with mcap.open("rb") as file:
        file.seek(-min(mcap.stat().st_size, len(MCAP_MAGIC)), os.SEEK_END)
        return file.read() == MCAP_MAGIC


def _topic(connection: Connection) -> Topic:
    extension = connection.ext
    if isinstance(extension, ConnectionExtRosbag2):
        return Topic(connection.topic, connection.msgtype, connection.msgcount, tuple(extension.offered_qos_profiles))
    latched = isinstance(extension, ConnectionExtRosbag1) and bool(extension.latching)
    return Topic(connection.topic, connection.msgtype, connection.msgcount, latched=latched)


def _identify(path: Path) -> tuple[str, list[Path]]:
    """The kind of bag at ``path`` and the files that hold its messages; `UserError` for anything else."""
    if path.is_dir():
        # Compressed as files they end in .mcap.zstd and .db3.zstd.
        files = sorted(file for file in path.iterdir() if {".mcap", ".db3"} & set(file.suffixes))
        if not files:
            raise UserError(f"{path}: a folder without .mcap or .db3 file is no rosbag2")
        if not (path / "metadata.yaml").is_file():
            raise UserError(f"{path}: metadata.yaml is missing; name the file itself instead: {files[0]}")
        return ("mcap bag" if ".mcap" in files[0].suffixes else "sqlite3 bag"), files
    kind = bag_kind(path)
    if not kind:
        raise UserError(f"{path}: not a bag: neither a ROS 1 bag nor a rosbag2 file (.mcap, .db3) nor a rosbag2 folder")
    if path.suffix != _SUFFIXES[kind]:
        raise UserError(f"{path}: holds a {kind}; rename it to end in {_SUFFIXES[kind]}")
    return kind, [path]
