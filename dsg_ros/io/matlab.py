"""Variables of a MATLAB file, read in a process of its own: some damaged files end the process that reads them."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.aside import Aside, Receive
from dsg_ros.errors import UserError

Variables = dict[str, NDArray[Any]]


_HDF = b"\x89HDF"


def is_matlab(head: bytes) -> bool:
    """Whether a file begins as MATLAB's do, also the newer ones that this program cannot read."""
    return head.startswith((b"MATLAB", _HDF))


def variables(path: Path, data: bytes) -> Variables:
    """All that the file holds, by name; what is not numbers without its content.  `UserError` where it is damaged."""
    if data.startswith(_HDF) or b"MATLAB 7.3" in data[:128]:
        raise UserError(f"{path}: MATLAB's format 7.3 is not read; save it with -v7 in MATLAB")
    with Aside("dsg_ros.io.matlab:read") as reader:
        reader.send(data)
        try:
            found: Variables = next(reader)
        except ImportError:
            raise
        except Exception as error:  # SciPy's reader stumbles over damage in a dozen ways: zlib.error, KeyError, ...
            raise UserError(f"{path}: not a MATLAB file that can be read: {error}") from error
    return found


def read(receive: Receive) -> Iterator[Variables]:
    """The process: takes the file's bytes."""
    from scipy.io import loadmat

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash that is told leaves no file behind
    found = {name: np.asarray(value) for name, value in loadmat(io.BytesIO(receive())).items() if name[:2] != "__"}
    yield {n: value if value.dtype.kind in "fiub" else np.zeros(value.shape, value.dtype) for n, value in found.items()}
