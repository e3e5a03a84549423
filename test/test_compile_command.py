"""What an installation compiles is fetched by whoever starts with an empty cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsg_ros.commands import compile as command
from dsg_ros.core import compilation
from dsg_ros.errors import UserError

TUTORIAL = (("tutorial", "hero --steps 1"),)
KERNEL = """
import numpy as np
from dsg_ros.core import native
from dsg_ros.core.native import se3
se3.rotate(np.array([0, 0, 0, 1.0]), np.ones(3))
print(native.cold(), sum(se3.rotate.stats.cache_hits.values()))
"""


def started(program: str, cache: Path | str, built: Path | str) -> list[str]:
    """Words that ``program`` prints with these folders."""
    environment = os.environ | {"DSG_ROS_CACHE": str(cache), "DSG_ROS_BUILT": str(built)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()


def test_what_was_built_is_taken_over_where_nothing_was_kept_yet(tmp_path: Path) -> None:
    built, cache = tmp_path / "built", tmp_path / "cache"
    assert started(KERNEL, built, "") == ["True", "0"]
    (built / "programs").mkdir()
    (built / "programs" / "one").write_bytes(b"a program")
    compilation.seal(built)
    before = {path.relative_to(built) for path in built.rglob("*") if path.is_file()}
    assert started(KERNEL, cache, built) == ["False", "1"]
    assert before <= {path.relative_to(cache) for path in cache.rglob("*") if path.is_file()}
    assert not list(cache.glob(f"{compilation.COPYING}*"))
    assert started(KERNEL, tmp_path / "other", "") == ["True", "0"]


PROGRAM = """
import jax, numpy as np
from dsg_ros.core import compilation
compilation.enable_cache()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
jax.jit(lambda x: x @ x + 1.0)(np.ones((3, 3)))
print(len(hits))
"""


def test_programs_of_xla_are_found_wherever_they_were_built(tmp_path: Path) -> None:
    """By default the folder's path is in the key of each."""
    assert started(PROGRAM, tmp_path / "built", "") == ["0"]
    started(KERNEL, tmp_path / "built", "")
    compilation.seal(tmp_path / "built")
    started(KERNEL, tmp_path / "cache", tmp_path / "built")
    assert started(PROGRAM, tmp_path / "cache", "") == ["1"]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with code of two versions, and a program."""
    folder = tmp_path / "built"
    for version in ("native-now", "native-old"):
        (folder / version / "of_a_file").mkdir(parents=True)
        (folder / version / "of_a_file" / "kernel.nbc").write_text("built")
    (folder / "programs" / "deep").mkdir(parents=True)
    (folder / "programs" / "deep" / "one").write_text("a program")
    compilation.seal(folder)
    monkeypatch.setenv(compilation.BUILT_VARIABLE, str(folder))
    return folder


def test_what_is_there_stays_and_what_is_of_other_sources_is_of_no_use(tmp_path: Path, built: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "native-now").mkdir(parents=True)
    (cache / "native-now" / "kernel.nbc").write_text("kept")
    compilation.adopt(cache, "native-new")
    assert [path.name for path in cache.rglob("*")] == ["native-now", "kernel.nbc"]
    compilation.adopt(cache, "native-now")
    assert (cache / "native-now" / "kernel.nbc").read_text() == "kept"
    assert (cache / "native-now" / "of_a_file" / "kernel.nbc").read_text() == "built", "what was lacking"
    assert (cache / "programs" / "deep" / "one").read_text() == "a program"
    empty = tmp_path / "empty"
    (empty / "native-now").mkdir(parents=True)  # as a start leaves it that found nothing built yet
    compilation.adopt(empty, "native-now")
    assert (empty / "native-now" / "of_a_file" / "kernel.nbc").read_text() == "built"
    assert (empty / "programs" / "deep" / "one").read_text() == "a program"
    assert sorted(path.name for path in empty.iterdir()) == [compilation.SEAL, "native-now", "programs"]


def test_each_build_is_taken_over_once(tmp_path: Path, built: Path) -> None:
    cache = tmp_path / "cache"
    compilation.adopt(cache, "native-now")
    (built / "programs" / "two").write_text("of another JAX")
    (built / "programs" / "deep" / "one").write_text("built anew")
    compilation.adopt(cache, "native-now")
    assert not (cache / "programs" / "two").exists()
    compilation.seal(built)
    compilation.adopt(cache, "native-now")
    assert (cache / "programs" / "two").read_text() == "of another JAX"
    assert (cache / "programs" / "deep" / "one").read_text() == "a program", "what is there stays"


def test_an_installation_may_be_read_only(tmp_path: Path, built: Path) -> None:
    folders = [built, *(path for path in built.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        compilation.adopt(tmp_path / "cache", "native-now")
    finally:
        for path in folders:
            path.chmod(0o755)
    for path in [path for path in (tmp_path / "cache").rglob("*") if path.is_dir()]:
        assert path.stat().st_mode & 0o700 == 0o700


def test_what_a_process_left_that_was_killed_while_it_copied_is_taken_away(tmp_path: Path, built: Path) -> None:
    old, new = tmp_path / "cache" / ".adopted-old", tmp_path / "cache" / ".adopted-new"
    for path in (old, new):
        (path / "native-now").mkdir(parents=True)
    os.utime(old, (0, 0))
    compilation.adopt(tmp_path / "cache", "native-now")
    assert not old.exists()
    assert new.exists()


def test_an_installation_that_cannot_be_read_costs_time_alone(tmp_path: Path) -> None:
    built = tmp_path / "installed"
    started(KERNEL, built, "")
    (version,) = built.glob("native-*")
    (version / "gone").symlink_to(tmp_path / "nowhere")
    compilation.seal(built)
    assert started(KERNEL, tmp_path / "cache", built) == ["True", "0"]


def test_the_command_does_every_step_and_tells_what_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(command, "STEPS", (*TUTORIAL, ("nothing", "run {place}/nowhere --out {place}/out")))
    assert command.main(command.Options(into=tmp_path / "built", json=True)) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == ["nothing"]
    assert told["files"] == sum(path.is_file() for path in (tmp_path / "built").rglob("*")) > 3
    assert "nothing: it ended with code 2" in caplog.text
    assert (tmp_path / "built" / "programs").is_dir()
    assert list((tmp_path / "built").glob(f"xla-{compilation.processor()}/*"))
    monkeypatch.setattr(command, "STEPS", TUTORIAL)
    assert command.main(command.Options(into=tmp_path / "built")) == 0


def test_where_nothing_is_kept_there_is_nothing_to_compile_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compilation.CACHE_VARIABLE, "")
    with pytest.raises(UserError, match="nothing is kept; name a folder with --into"):
        command.main(command.Options())
