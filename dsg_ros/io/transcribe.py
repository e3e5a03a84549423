"""Every message of a bag into a rosbag2: ROS 1 messages re-encoded, ROS 2 messages as they are."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator

from rosbags.convert.converter import generate_message_converter
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from dsg_ros.io.bagwriter import BagWriter, offered_qos
from dsg_ros.io.rawbag import RawBag, Topic

_log = logging.getLogger(__name__)

_RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
_NAMED = 5
_Converter = Callable[[bytes], bytes | memoryview]


def transcribe(source: RawBag, target: BagWriter, counts: Counter[str]) -> Iterator[int]:
    """Copy message by message, yielding how many were read so far.

    Types that neither the bag nor ROS 2 defines are left out: named once and counted as ``unknown_type <type>``;
    messages that do not decode are named and counted as ``undecodable <topic>``.
    """
    converters: dict[Topic, _Converter] = {}
    for topic in source.topics:
        converter = _converter(source, target.typestore, topic)
        if converter is None:
            counts[f"unknown_type {topic.msgtype}"] += topic.count
            continue
        if topic.name in target.counts or any(topic.name == known.name for known in converters):
            _log.warning("%s: topic %s has two types; %s is left out", source.path, topic.name, topic.msgtype)
            counts[f"second_type {topic.msgtype}"] += topic.count
            continue
        latched = topic.latched or topic.name.endswith("tf_static")
        qos = list(topic.qos) or offered_qos(depth=1 if latched else 10, latched=latched)
        target.add_topic(topic.name, _RENAMED.get(topic.msgtype, topic.msgtype), qos)
        converters[topic] = converter
    for number, (topic, stamp, data) in enumerate(source.messages(converters), 1):
        try:
            target.write(topic.name, stamp, converters[topic](data))
        except Exception as error:  # noqa: BLE001  generated decoders fail in whatever way the bytes are wrong
            counts[f"undecodable {topic.name}"] += 1
            if counts[f"undecodable {topic.name}"] <= _NAMED:
                _log.warning("%s: %s at bag time %.6f: left out: %s", source.path, topic.name, stamp / 1e9, error)
        yield number
    counts.update(source.counts)


def _converter(source: RawBag, types: Typestore, topic: Topic) -> _Converter | None:
    name = _RENAMED.get(topic.msgtype, topic.msgtype)
    try:
        if name not in types.fielddefs:
            _adopt(source.typestore, types, topic.msgtype)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):  # the library prints which types it migrates
            converter = generate_message_converter(
                source.typestore, types, topic.msgtype, name, {}, src_is2=not source.ros1, dst_is2=True
            )
        if said.getvalue():
            _log.info("%s: %s", topic.name, said.getvalue().strip())
    except Exception as error:  # noqa: BLE001  whatever is wrong with a definition, the other topics go on
        _log.warning("%s: %s: the type %s is unknown, left out: %r", source.path, topic.name, topic.msgtype, error)
        return None
    return converter


def _adopt(source: Typestore, types: Typestore, msgtype: str) -> None:
    """Register ``msgtype`` and what it is made of, as the bag defines it, among the target's types."""
    text, _ = source.generate_msgdef(msgtype, ros_version=2)
    found = get_types_from_msg(text, msgtype)
    types.register({name: fields for name, fields in found.items() if name not in types.fielddefs})
