"""learned.yaml: the parameters a run has learned, with their deviations and where they come from."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dsg_ros.errors import UserError
from dsg_ros.interface import Parameter
from dsg_ros.io.atomic import write_bytes

FORMAT_VERSION = 1
_STATES = ("learned", "frozen", "unobservable")
_HEAD = """\
# Learned by dsg_ros.  value: to be applied; sigma: one standard deviation; status: learned, frozen (kept at its start)
# or unobservable (the motion did not excite it).
"""


@dataclass(frozen=True)
class Learned:
    """Parameters with their ``provenance``: log, date, metres driven, held-out loss before and after, versions."""

    parameters: tuple[Parameter, ...]
    provenance: Mapping[str, Any]


def write_learned(path: Path, parameters: Sequence[Parameter], provenance: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all; ``provenance`` holds plain values (text, numbers, None, nested mappings)."""
    document = {
        "format_version": FORMAT_VERSION,
        "provenance": _plain(provenance),
        "parameters": [_plain(dataclasses.asdict(parameter)) for parameter in parameters],
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    write_bytes(path, (_HEAD + text).encode())


def read_learned(path: Path, known: Collection[str] = ()) -> Learned:
    """Read a file of `write_learned`.

    Raises `UserError`, naming the file and the reason, where it is not YAML, has another format version, lacks or
    misspells an entry, or, if ``known`` names are given, holds a parameter that is none of them.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(document, dict) or "format_version" not in document:
        raise UserError(f"{path}: not a file of learned parameters (format_version is missing)")
    version = document["format_version"]
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format version {version!r}; this program reads version {FORMAT_VERSION}")
    unknown = document.keys() - {"format_version", "provenance", "parameters"}
    if unknown or not isinstance(document.get("parameters"), list):
        what = (
            f"unknown entries {', '.join(map(str, sorted(unknown, key=str)))}" if unknown else "no list of parameters"
        )
        raise UserError(f"{path}: {what}")
    parameters = tuple(_parameter(path, index, entry) for index, entry in enumerate(document["parameters"]))
    names = [parameter.name for parameter in parameters]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: told twice: {', '.join(repeated)}")
    for name in names:
        if known and name not in known:
            close = ", ".join(difflib.get_close_matches(name, list(known), n=3)) or ", ".join(sorted(known))
            raise UserError(f"{path}: unknown parameter {name!r}; known is {close}")
    return Learned(parameters, document.get("provenance") or {})


def _parameter(path: Path, index: int, entry: Any) -> Parameter:
    fields = {field.name: field for field in dataclasses.fields(Parameter)}
    where = f"{path}: parameter {index + 1}"
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {entry!r} is not a mapping")
    if unknown := entry.keys() - fields.keys():
        raise UserError(f"{where}: unknown entry {', '.join(map(str, sorted(unknown, key=str)))}")
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := required - entry.keys():
        raise UserError(f"{where}: {', '.join(sorted(missing))} is missing")
    values = dict(entry)
    for name in values.keys() - {"value", "sigma"}:
        if not isinstance(values[name], str):
            raise UserError(f"{where}: {name} {values[name]!r} is not text")
    for name in ("value", "sigma"):
        if not isinstance(values[name], int | float) or isinstance(values[name], bool):
            raise UserError(f"{where} ({values['name']}): {name} {values[name]!r} is not a number")
        try:
            values[name] = float(values[name])
        except OverflowError as error:
            raise UserError(f"{where} ({values['name']}): {name} has too many digits") from error
    if not math.isfinite(values["value"]) or not values["sigma"] >= 0:
        raise UserError(f"{where} ({values['name']}): value {values['value']} with sigma {values['sigma']}")
    if values["status"] not in _STATES:
        raise UserError(f"{where} ({values['name']}): status {values['status']!r} is none of {', '.join(_STATES)}")
    return Parameter(**values)


def _plain(value: Any) -> Any:
    """``value`` with NumPy scalars and other mappings made what YAML can write."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
