"""Loops over points and rows that neither NumPy nor JAX vectorises well, compiled by Numba and kept on disk.

JAX is for what is differentiated and for what a GPU can take.  A scan matched to hash tables of voxels is neither, and
many small steps cost XLA more than the work in them: a scan of 180 beams took 0.71 ms as one program of fixed shape and
takes 0.10 ms here, the map of thirty keyframes 2.5 ms in NumPy and 0.66 ms here (medians, one after the other).

Numba notices a changed file, but not that a function from another file changed which was compiled into it.  So
kernels call functions of their own file and of this package only, and the cache folder carries this package's digest.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.bytecode import FunctionIdentity
from numpy.typing import NDArray

from dsg_ros.core.compilation import NATIVE, adopt, cache_folder, native_counters

Function = TypeVar("Function", bound=Callable[..., Any])

_log = logging.getLogger(__name__)


_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
# Of Numba's version too: its caches are of no use to the next, and would stand in the way of what was built for that.
_DIGEST = hashlib.sha256(b"".join([numba.__version__.encode(), *(path.read_bytes() for path in _SOURCES)]))
_VERSION = f"{NATIVE}{_DIGEST.hexdigest()[:12]}"


def _folder() -> Path | None:
    """The folder of this version's kernels, with what was built at installation; None where nothing can be kept."""
    base = cache_folder()
    if base is None:
        return None
    try:
        adopt(base, _VERSION)
    except OSError as error:
        _log.warning("what was compiled at installation cannot be used, and is compiled again: %s", error)
    try:
        (base / _VERSION).mkdir(parents=True, exist_ok=True)
    except OSError:  # reported for the folder above, by dsg_ros.core.compilation
        return None
    return base / _VERSION


# A compiled function's name carries a number that Numba counts from one in each process.  In kernels that different
# processes kept, one name could then stand for different functions, and whoever fetches both has the first of them in
# place of the other: a sort that does not sort, or a segmentation fault (numba/numba#10486).  Numbers at random are
# nobody else's.
FunctionIdentity._unique_ids = iter(lambda: secrets.randbits(62), None)  # type: ignore[assignment]

_FOLDER = _folder()
if _FOLDER is not None:
    numba.config.CACHE_DIR = str(_FOLDER)  # type: ignore[attr-defined]


COMPILING = "compiling, as nothing is kept of this version here yet: one to three minutes"
"""To be told where all is `cold`."""


_COLD = _FOLDER is None or next(_FOLDER.rglob("*.nbc"), None) is None


def cold() -> bool:
    """Whether nothing was kept of these kernels when this process began: what is used first takes minutes."""
    return _COLD


def compiled(function: Function) -> Function:
    """``function`` compiled at its first call for the types it is called with; it must not need the interpreter.

    Division by zero gives infinities, as in NumPy.  The interpreter's lock is released while it runs.
    """
    kernel = numba.njit(cache=_FOLDER is not None, nogil=True, error_model="numpy")(function)
    if _FOLDER is not None:
        kept = cast(Any, kernel)._cache._cache_file
        kept._data_name_pattern = _Names(kept._index_name.removesuffix(".nbi"))
    _overloads.append(kernel.overloads)
    return cast(Function, kernel)


class _Names:
    """For files of compiled code, no two alike.

    Numba counts them from one in each folder: of two processes that keep code of the same function at the same time,
    or one that is ended before it is written, a file could hold other code than the index says.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def format(self, number: int) -> str:
        """A name nobody has had, whatever the ``number``."""
        return f"{self._name}.{secrets.token_hex(8)}.nbc"


def plain(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """``array``, or a copy if it is not contiguous or not writable: a kernel is compiled anew for each of those."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy()


_overloads: list[Any] = []
# A kernel has one overload a combination of types it was compiled, or fetched from the disk, for.
native_counters.append(lambda: sum(map(len, _overloads)))
