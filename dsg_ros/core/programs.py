"""Traced programs kept on disk, so that a start neither traces nor lowers them again.

JAX's own cache spares the compilation alone.  Tracing and lowering are paid in every process, and for programs of
thousands of small operations they take longer than all the rest: of the tutorial's step 3 s, beside 1 s for loading
what was compiled.  Here the lowered program is kept, as StableHLO (`jax.export`); the compiled one stays with JAX.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import export

from dsg_ros.core.compilation import cache_folder

Function = TypeVar("Function", bound=Callable[..., Any])
Options = dict[str, bool | str] | None

KEPT = 8
"""Programs of one function that stay on disk: shapes, versions and check-outs that take turns."""

_log = logging.getLogger(__name__)


def kept(options: Callable[[], Options] = lambda: None) -> Callable[[Function], Function]:
    """``jax.jit`` for functions whose traced programs are kept on disk.

    Positional arguments are pytrees of arrays; keyword arguments are static: hashable, with a ``repr`` that says all.
    There is one program a combination of shapes and static arguments.  Under a transformation of JAX's the function is
    called as it is.  ``options`` of the compiler are asked for when there is something to trace.
    """

    def decorate(function: Function) -> Function:
        return cast(Function, functools.wraps(function)(_Kept(function, options)))

    return decorate


@dataclass(frozen=True)
class _Program:
    """A lowered program on flat arguments; ``example`` has the structure of its results, with numbers for arrays."""

    lowered: bytearray
    example: Any
    options: Options


class _Kept:
    def __init__(self, function: Callable[..., Any], options: Callable[[], Options]) -> None:
        self._function = function
        self._options = options
        self._ready: dict[Any, tuple[jax.stages.Compiled, Any]] = {}

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._function(*arguments, **static)
        # A Python number would be weakly typed: another program, with other results where types meet.
        arrays = [leaf if isinstance(leaf, jax.Array | np.ndarray) else np.asarray(leaf) for leaf in leaves]
        key = (tree, tuple((array.shape, array.dtype) for array in arrays), tuple(sorted(static.items())))
        if key not in self._ready:
            program = self._program(arrays, tree, static, " ".join(map(str, key)))
            call = jax.jit(export.deserialize(program.lowered).call, compiler_options=program.options)
            # Compiled here and not by the call: jit would make another program once arguments come from a device.
            self._ready[key] = call.lower(*arrays).compile(), jax.tree.structure(program.example)
        compiled, out = self._ready[key]
        return jax.tree.unflatten(out, compiled(*arrays))

    def _program(self, arrays: list[Any], tree: Any, static: dict[str, Any], what: str) -> _Program:
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        digest = hashlib.sha256(f"{_versions()} {_sources(self._function)} {what}".encode()).hexdigest()
        path = cache_folder() and Path(cache_folder() or "", "programs", f"{name}-{digest[:24]}")
        program = path and _load(path)
        if program:
            _find_lapack()
        else:
            program = self._traced(arrays, tree, static)
        if path and not path.exists():
            _save(path, program)
        return program

    def _traced(self, arrays: list[Any], tree: Any, static: dict[str, Any]) -> _Program:
        example: Any = None

        def flat(*leaves: Any) -> list[Any]:
            nonlocal example
            out, found = jax.tree.flatten(self._function(*tree.unflatten(leaves), **static))
            # Not the structure itself: Equinox marks fields in it by an object's identity, which no file can keep.
            example = jax.tree.unflatten(found, range(len(out)))
            return out

        flat.__name__ = self._function.__name__
        lowered = export.export(jax.jit(flat))(*arrays).serialize()
        return _Program(lowered, example, self._options())


@cache
def _find_lapack() -> None:
    """Until JAX 0.8 the functions of LAPACK are looked up where a program that calls them is lowered, and one that was
    lowered by another process calls a null pointer (jax-ml/jax#29610).  So one is lowered here.
    """
    if jax.__version_info__ < (0, 9):
        jax.jit(jax.lax.linalg.cholesky).lower(np.eye(1))


def _load(path: Path) -> _Program | None:
    try:
        program = pickle.loads(path.read_bytes())
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, AttributeError, ImportError, pickle.UnpicklingError) as error:
        _log.warning("%s cannot be read and is made anew: %s", path, error)
        path.unlink(missing_ok=True)
        return None
    return cast(_Program, program)


def _save(path: Path, program: _Program) -> None:
    """Keep a program; of the same function's others those go that were not used for longest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            pickle.dump(program, file)
        os.replace(file.name, path)
        alike = path.parent.glob(f"{path.name.rpartition('-')[0]}-*")
        for old in sorted(alike, key=lambda other: other.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:  # the next start takes longer, nothing else
        _log.info("%s is not kept: %s", path.name, error)


@cache
def _versions() -> str:
    versions = [version(name) for name in ("jax", "jaxlib", "flatbuffers", "equinox", "numpy")]
    return f"{versions} {jax.dtypes.canonicalize_dtype(float)} on {jax.default_backend()}"


@cache
def _sources(function: Callable[..., Any]) -> str:
    """Digest of all a traced function may have been made of: the core (not its native part, which JAX cannot trace) and
    the package that the function is from.
    """
    core, own = Path(__file__).parent, Path(inspect.getfile(function)).parent
    folders = (core, core / "factors", core / "solvers", own)
    sources = {core.parent / "poses.py", *(path for folder in folders for path in folder.glob("*.py"))}
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()
