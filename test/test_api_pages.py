"""The API pages have every public module, none of the others, and say what the docstrings say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from imports import modules

pytest.importorskip("pdoc", reason="comes with requirements-dev.lock")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """docs/api_pages.py."""
    spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs" / "api_pages.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


# The wheels' type support pulls in a parser that imports what Python 3.11 deprecates: not ours to be told about.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_public_module_imports_and_has_a_page(tool):
    public = {name for name in modules(ROOT / "dsg_ros") if not re.search(r"\._", name)}
    assert set(tool.modules()) == public


def test_pages_show_docstrings_and_nothing_private(tool, tmp_path):
    """Indented formulas as they stand; names in backticks lead to what they name."""
    tool.write(tmp_path, "dsg_ros.simulation.truth")
    page = (tmp_path / "dsg_ros" / "simulation" / "truth.html").read_text(encoding="utf-8")
    assert "<pre><code>x = x' / s - b_x dt / s,    w = w' / g - c x' / (g s)" in page
    assert '<a href="#assumed_base">assumed_base</a>' in page
    tool.write(tmp_path, "dsg_ros.synchroniser")
    page = (tmp_path / "dsg_ros" / "synchroniser.html").read_text(encoding="utf-8")
    assert 'id="dropped_scans"' in page
    assert 'id="_log_report"' not in page
