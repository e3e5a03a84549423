"""Keep README.md's parameter table as dsg_ros/config says: ``python docs/parameter_table.py`` rewrites it."""

from __future__ import annotations

from pathlib import Path

from dsg_ros import config

BEGIN, END = "<!-- parameters: written by docs/parameter_table.py -->", "<!-- end of parameters -->"
README = Path(__file__).parents[1] / "README.md"


def table() -> str:
    """Every parameter of the node as Markdown: the node's own as a table, those of the pipeline folded away."""
    everything = list(config.settings(config.Node()))
    pipeline = {setting.name for setting in config.settings(config.Slam())}
    own = [setting for setting in everything if setting.name not in pipeline]
    rest = [setting for setting in everything if setting.name in pipeline]
    return "\n".join(
        [
            *_rows(own),
            "",
            f"<details><summary>The pipeline's {len(rest)} parameters, also those of <code>run --set</code></summary>",
            "",
            *_rows(rest),
            "",
            "</details>",
        ]
    )


def _rows(settings: list[config.Setting]) -> list[str]:
    rows = ["| Parameter | Default | Allowed | Meaning |", "|---|---|---|---|"]
    for setting in settings:
        value = str(setting.value).lower() if setting.type is bool else f"{setting.value}"
        shown = f"`{value}`" if value else "empty"
        rows.append(f"| `{setting.name}` | {shown} | {_allowed(setting)} | {setting.doc} |")
    return rows


def _allowed(setting: config.Setting) -> str:
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    if setting.range:
        return f"{setting.range.low:g} to {setting.range.high:g} {setting.range.unit}".rstrip()
    return {bool: "`true`, `false`", str: "text", int: "whole number", float: "number"}[setting.type]


def updated(text: str) -> str:
    """``text`` with what stands between the two marks replaced by the table."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
