"""What a setting is: a field of a configuration, read, checked and replaced by its dotted name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Doc


@dataclass(frozen=True)
class Range:
    """Closed interval of a numeric setting, with its unit."""

    low: float
    high: float
    unit: str = ""


class ConfigError(ValueError):
    """A setting has an unknown name, a wrong type or a value out of range; the message says which and what is
    allowed.
    """


@dataclass(frozen=True)
class Setting:
    """One leaf of a configuration: its dotted ``name``, Python ``type``, default ``value`` and documentation."""

    name: str
    type: Any
    value: Any
    doc: str
    range: Range | None
    choices: tuple[str, ...]


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every leaf of ``config`` (an instance), depth first, in the order of declaration."""
    hints = get_type_hints(type(config), include_extras=True)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{item.name}.")
            continue
        hint = hints[item.name]
        base, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        doc = next((e.documentation for e in extras if isinstance(e, Doc)), "")
        limits = next((e for e in extras if isinstance(e, Range)), None)
        choices = get_args(base) if get_origin(base) is Literal else ()
        yield Setting(f"{prefix}{item.name}", str if choices else base, value, doc, limits, choices)


def check(setting: Setting, value: Any) -> Any:
    """``value`` converted to the setting's type, or `ConfigError` naming the setting and what it allows."""
    if setting.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not setting.type:
        raise ConfigError(f"{setting.name}: expected {setting.type.__name__}, got {value!r}")
    if setting.choices and value not in setting.choices:
        raise ConfigError(f"{setting.name}: {value!r} is not one of {', '.join(setting.choices)}")
    if setting.type is float and not math.isfinite(value):
        raise ConfigError(f"{setting.name}: {value!r} is not a finite number")
    if setting.range and not setting.range.low <= value <= setting.range.high:
        limits = setting.range
        raise ConfigError(
            f"{setting.name}: {value!r} is outside [{limits.low:g}, {limits.high:g}] {limits.unit}".rstrip()
        )
    return value


def check_all(config: Any) -> None:
    """`ConfigError` on the first setting of ``config`` that has a value it does not allow."""
    for setting in settings(config):
        check(setting, setting.value)


def replace(config: Any, values: dict[str, Any]) -> Any:
    """A copy of ``config`` with dotted names replaced; `ConfigError` on the first unknown name or refused value."""
    known = {s.name: s for s in settings(config)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown parameter {name!r}; close: {_closest(name, known) or 'none'}")
        config = _replace_at(config, name.split("."), check(known[name], value))
    return config


def _replace_at(config: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return dataclasses.replace(config, **{head: _replace_at(getattr(config, head), rest, value) if rest else value})


def _closest(name: str, known: Any) -> str:
    import difflib

    return ", ".join(difflib.get_close_matches(name, list(known), n=3))
