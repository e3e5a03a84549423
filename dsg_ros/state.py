"""The state of a component as plain arrays: what ``state()`` returns, and ``restore()`` takes on one made anew.

Names are dotted paths.  Rows that never change once they are there are handed out as views, all else as copies: so a
state can be written by another thread while mapping goes on.  A tuple of arrays stands for rows of different lengths.
Numbers and words by name are JSON in an array of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = dict[str, Array | tuple[Array, ...]]


def nested(**parts: Mapping[str, Array | tuple[Array, ...]]) -> State:
    """The states of parts, under their names."""
    return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


def part(state: Mapping[str, Array | tuple[Array, ...]], name: str) -> Any:
    """The state of one part of `nested`."""
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}


def packed(values: Any) -> NDArray[np.uint8]:
    """Numbers, words, lists and mappings of them as JSON."""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def unpacked(array: Array) -> Any:
    """What `packed` was given, tuples as lists.  ValueError for what is no JSON."""
    return json.loads(array.tobytes())
