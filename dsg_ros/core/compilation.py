"""Compilation by XLA and Numba: kept on disk, and counted, so that "nothing compiles while running" can be checked."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType

import jax
from llvmlite import binding as llvm

CACHE_VARIABLE = "DSG_ROS_CACHE"
"""Environment variable naming the cache folder; set but empty, nothing is kept on disk."""

BUILT_VARIABLE = "DSG_ROS_BUILT"
"""Environment variable naming the folder of what was compiled when the package was installed; empty: there is none."""

NATIVE = "native-"
"""Begins the names of the folders of native code, one a version of its sources."""

CODE = ".nbc"
"""Ends the names of files of native code."""

SEAL = "built"
"""Name of the file in a folder of what was built that tells one build from the next, and which one a cache has."""

COPYING = ".adopted-"
"""Begins the names of folders in a cache to which is being copied."""

LONGEST_COPY = 3600.0
"""Seconds after which a copy that is not done was given up."""

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Where compiled programs are kept: $DSG_ROS_CACHE, else dsg_ros/xla in the XDG cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dsg_ros" / "xla"


def built_folder() -> Path | None:
    """What ``python -m dsg_ros compile`` left: $DSG_ROS_BUILT, else share/dsg_ros/compiled of the environment."""
    chosen = os.environ.get(BUILT_VARIABLE)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    return Path(sys.prefix, "share", "dsg_ros", "compiled")


def seal(folder: Path) -> None:
    """Say of ``folder`` that it now holds what others may `adopt`, or holds something new."""
    (folder / SEAL).write_text(secrets.token_hex(16))


def adopt(folder: Path, version: str) -> None:
    """Copy what was built at installation into the cache ``folder``, once for each time that it was built.

    ``version`` names the folder of native code: what was built from other sources is of no use.  A copy, for a cache
    is written to, and an installation may be another user's, or read-only.  What the cache has already stays.  Another
    process may do the same at the same time.  `OSError` where it cannot be read or written.
    """
    built = built_folder()
    if built is None or not (built / SEAL).exists() or not _holds_code(built / version):
        return
    sealed = (built / SEAL).read_text()
    with contextlib.suppress(FileNotFoundError):
        if (folder / SEAL).read_text() == sealed:
            return
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    with tempfile.TemporaryDirectory(prefix=COPYING, dir=folder) as name:
        place = Path(name)
        for path in built.rglob("*"):
            within = path.relative_to(built)
            other = within.parts[0].startswith(NATIVE) and within.parts[0] != version
            if not other and not path.is_dir() and within != Path(SEAL):
                (place / within).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / within)
        with contextlib.suppress(OSError):  # there is some already: what that lacks is added
            (place / version).rename(folder / version)
        # Code comes before the indices that name it.
        for path in sorted((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.suffix != CODE):
            target = folder / path.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                path.replace(target)
        (place / SEAL).write_text(sealed)
        (place / SEAL).replace(folder / SEAL)


def _clear(folder: Path) -> None:
    """Take away copies that were begun long ago: whoever made them was ended."""
    for left in folder.glob(f"{COPYING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LONGEST_COPY:
                shutil.rmtree(left)


def _holds_code(folder: Path) -> bool:
    return next(folder.rglob(f"*{CODE}"), None) is not None


def processor() -> str:
    """Tells this machine's processor from others: what XLA compiles for one may not run on another."""
    features = llvm.get_host_cpu_features().flatten()
    return hashlib.sha256(f"{llvm.get_host_cpu_name()} {features}".encode()).hexdigest()[:8]


def enable_cache() -> None:
    """Keep every compiled program on disk.  A folder that cannot be made is logged: the only loss is start-up time.

    One folder a processor, for an image or a home is shared by machines, and XLA's keys do not tell them apart.
    """
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("compiled programs are not kept: %s (set %s to a writable folder)", error, CACHE_VARIABLE)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / f"xla-{processor()}"))
    # By default JAX keeps only what took over a second: this package has dozens of small programs instead.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # XLA's own caches (of a GPU's autotuning) would put the folder's path into every key: what was built at
    # installation, in a folder of its own, would never be found.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


@cache
def quick_compilation() -> dict[str, bool | str] | None:
    """Options for jax.jit that compile about three times faster to slower programs, for problems of a few variables.

    XLA's options come and go: those that the installed version does not know are left out.
    """
    accepted: dict[str, bool | str] = {}
    for name, value in _QUICK.items():
        try:
            jax.jit(lambda: 0, compiler_options=accepted | {name: value}).lower().compile()
        except jax.errors.JaxRuntimeError as error:
            _log.info("compiling without %s: %s", name, error)
        else:
            accepted[name] = value
    return accepted or None


_QUICK: dict[str, bool | str] = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": False}


class CompileCounter:
    """Counts compilations between enter and exit; a fetch from the disk cache counts, for it stalls too.

    ``seconds`` are XLA's alone.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._xla = 0
        self._native = 0
        self._running = False

    @property
    def count(self) -> int:
        """Compilations so far."""
        return self._xla + (self._native + _native() if self._running else self._native)

    def __enter__(self) -> CompileCounter:
        _counters.append(self)
        self._native -= _native()
        self._running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _counters.remove(self)
        self._native += _native()
        self._running = False

    def note(self, seconds: float) -> None:
        """XLA compiled something."""
        self._xla += 1
        self.seconds += seconds


native_counters: list[Callable[[], int]] = []
"""Who else compiles, and how often it has so far (`dsg_ros.core.native`)."""


def _native() -> int:
    return sum(count() for count in native_counters)


# JAX has no call to take one listener away, so one listener stays for good and serves whoever counts.
_counters: list[CompileCounter] = []
_process = CompileCounter().__enter__()


def compilations() -> int:
    """Compilations by XLA and Numba in this process since this module was imported."""
    return _process.count


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILE_EVENT:
        for counter in _counters:
            counter.note(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_listen)
