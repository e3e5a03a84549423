import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """The module of made-up runs beside this file, whatever pytest's import mode."""
    spec = importlib.util.spec_from_file_location("report_test_runs", Path(__file__).with_name("runs.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
