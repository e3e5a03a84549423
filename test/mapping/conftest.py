"""Shared by the tests of mapping: kernels compile once a session, for one planar and one spatial set of shapes."""

from __future__ import annotations

import pytest

from dsg_ros import config
from dsg_ros.mapping.local_map import LocalMapper


@pytest.fixture(scope="session")
def settings() -> config.Slam:
    """The defaults."""
    return config.Slam()


@pytest.fixture(scope="session")
def mapper(settings: config.Slam) -> LocalMapper:
    """For scans of a planar scanner."""
    return LocalMapper(settings.registration, settings.input, planar=True)


@pytest.fixture(scope="session")
def spatial(settings: config.Slam) -> LocalMapper:
    """For clouds in space."""
    return LocalMapper(settings.registration, settings.input, planar=False)
