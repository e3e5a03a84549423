"""What README.md says about the package is what the package is."""

import importlib.util
import re
from pathlib import Path

import pytest

from dsg_ros.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_parameter_table_is_current():
    spec = importlib.util.spec_from_file_location("parameter_table", ROOT / "docs" / "parameter_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = README.read_text(encoding="utf-8")
    assert tool.updated(text) == text, "run: python docs/parameter_table.py"


def test_every_command_named_exists_and_every_command_is_named():
    named = set(re.findall(r"python -m dsg_ros (\w+)", README.read_text(encoding="utf-8")))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/learning.md"])
def test_links_and_pictures_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert local or page != "README.md"
    for target in local:
        assert (path.parent / target).exists(), f"{page} links to {target}, which is not there"


def test_the_picture_is_small():
    assert (ROOT / "docs" / "images" / "killian.png").stat().st_size < 300_000
