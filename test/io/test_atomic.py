"""Files that are whole or absent, and what is not to be replaced by one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dsg_ros import cli
from dsg_ros.errors import UserError
from dsg_ros.io.atomic import destination, write_bytes


def test_a_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        write_bytes(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert os.listdir(tmp_path) == ["a"]


def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(Path("far") / "file")
    for data in (b"one", b"two"):  # the first makes the file it leads to
        write_bytes(link, data)
        assert link.is_symlink()
        assert (tmp_path / "far" / "file").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["far", "link"]
    assert os.listdir(tmp_path / "far") == ["file"]


def test_what_is_no_regular_file_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UserError, match="is no regular file, and would be lost: name another one"):
            write_bytes(path, b"data")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "astray").symlink_to(Path("none") / "file")
    for name, message in {
        ".": "is a folder: name a file in it",
        "none/a": f"there is no folder {tmp_path / 'none'}",
        "astray": f"astray: there is no folder {tmp_path / 'none'}",
        "circle": "circle: cannot be written",
    }.items():
        with pytest.raises(UserError, match=message):
            destination(tmp_path / name)


def test_optimize_refuses_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "out.g2o"
    os.mkfifo(pipe)
    # There is no such graph either: it is not even looked for.
    assert cli.main(["optimize", str(tmp_path / "none.g2o"), "--out", str(pipe)]) == 2
    assert "out.g2o: is no regular file" in capsys.readouterr().err
    assert stat.S_ISFIFO(pipe.stat().st_mode)
