"""The demo's child processes, and a short demo over real DDS."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsg_ros.commands.demo import Options, Settled, Watch, _viewed, find_run, main
from dsg_ros.errors import UserError
from dsg_ros.processes import Failure, Follower, Process, free_domain


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def endless(tmp_path):
    """A process that is busy for minutes: an offline run of a log that never ends well."""
    line = "FLASER 4 1.0 1.0 1.0 1.0 0 0 0 0 0 0 {0}.0 robot {0}.0\n"
    (tmp_path / "long.clf").write_text("".join(line.format(i) for i in range(200_000)))
    return Process("runner", ["run", str(tmp_path / "long.clf"), "--out", str(tmp_path / "out")], tmp_path / "log", {})


def test_a_child_that_fails_is_told_with_the_end_of_its_log(tmp_path):
    child = Process("player", ["run", "absent.clf", "--out", "nowhere"], tmp_path / "log", {})
    with child:
        assert child.wait(60.0) == 2
        with pytest.raises(
            Failure, match=r"the player ended early with code 2(.|\n)*absent\.clf: there is no such file"
        ):
            child.check()
        with pytest.raises(Failure, match="printed no result"):
            child.last_json()


def test_no_process_is_left_whatever_happens(endless):
    def interrupted():
        with endless:
            time.sleep(0.5)
            endless.check()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert endless.code is not None
    assert not is_alive(endless._process.pid)


def test_waiting_ends_with_the_condition_the_clock_or_the_process(endless, tmp_path):
    status = tmp_path / "status.json"
    follower = Follower(endless, status)
    with endless:
        with pytest.raises(Failure, match="the runner did not be ready within 0 s"):
            follower.wait("be ready", 0.3, lambda s: True)
        status.write_text('{"state": "ready"}')
        shown = []
        follower.wait("be ready", 5.0, lambda s: s["state"] == "ready", shown.append)
        assert shown == [{"state": "ready"}]
        with pytest.raises(Failure, match="did not write again"):
            follower.wait("write again", 0.3, lambda s: True, fresh=True)
        endless.interrupt()
        endless.wait(60.0)
        with pytest.raises(Failure, match="ended early"):
            follower.wait("go on", 5.0, lambda s: False)


def test_settled_when_all_is_accounted_for():
    settled = Settled(100)
    assert not settled({"scans": {"received": 99, "lost": 0, "waiting": 0}})
    assert not settled({"scans": {"received": 99, "lost": 1, "waiting": 3}})
    assert settled({"scans": {"received": 99, "lost": 1, "waiting": 0}})


def test_a_domain_is_free_for_all_who_ask():
    assert 1 <= free_domain() <= 100


def test_a_domain_is_not_free_where_the_first_participant_has_gone_and_another_has_not():
    domain = free_domain()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        third.bind(("", 7410 + 250 * domain + 2 * 2))
        assert free_domain() != domain


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"no demo left \(thesis\.tex\)"):
        main(Options(out=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("wrong", "message"), [({"rate": 0.0}, "--rate 0"), ({"limit": -1}, "--limit -1")])
def test_options_out_of_range(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        main(Options(out=tmp_path / "out", **wrong))
    assert not (tmp_path / "out").exists()


def test_the_recording_comes_with_rtb_data():
    pytest.importorskip("rtbdata", reason="the demo's recording is in the package rtb-data")
    assert find_run().name == "killian.g2o.zip"


def processes_of(folder):
    """Processes of this machine that have ``folder`` among their arguments."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in arguments.read_bytes():
                found.append(int(arguments.parent.name))
    return found


@pytest.mark.slow
def test_ctrl_c_leaves_no_process(tmp_path):
    pytest.importorskip("rtbdata", reason="the demo's recording is in the package rtb-data")
    out = tmp_path / "interrupted"
    command = [sys.executable, "-m", "dsg_ros", "demo", "--out", str(out), "--limit", "100"]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with demo:
        for line in demo.stderr:
            if "the node starts" in line:
                break
        while len(processes_of(out)) < 2:
            time.sleep(0.1)
        demo.send_signal(signal.SIGINT)
        errors = demo.stderr.read()
    assert demo.returncode == 130
    assert "Traceback" not in errors
    assert processes_of(out) == []


@pytest.mark.slow
def test_a_short_demo(tmp_path):
    pytest.importorskip("rtbdata", reason="the demo's recording is in the package rtb-data")
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "dsg_ros", "demo", "--out", str(out), "--limit", "150", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["ok"]
    assert told["scans"] == 150
    scans = told["messages"]["scans"]
    assert (scans["processed"], scans["lost"], sum(scans["dropped"].values())) == (150, 0, 0)
    for name in ("trajectory.tum", "map.ply", "learned.yaml", "report.html", "report.json", "map.png", "errors.png"):
        assert (out / name).stat().st_size > 0
    report = json.loads((out / "report.json").read_text())
    assert report["source"] == "killian.g2o.zip"
    assert report["counts"]["scans_sent"] == 150
    shutil.rmtree(out)


@pytest.mark.parametrize(
    ("view", "display", "served"),
    [("auto", "", False), ("auto", ":0", True), ("web", "", True), ("none", ":0", False)],
)
def test_the_view_is_served_where_somebody_sees_it(monkeypatch, view, display, served):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    assert bool(_viewed(Options(view=view))) is served


def test_a_browser_is_opened_once_when_the_page_is_there(tmp_path, monkeypatch, capsys):
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    browser.chmod(0o755)
    program = (
        "from dsg_ros.commands.demo import Watch\n"
        "watch = Watch()\n"
        "for url in ('', 'http://127.0.0.1:1', 'http://127.0.0.1:1'): watch({'view': url})"
    )
    environment = {**os.environ, "BROWSER": f"{browser} %s"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "web view: http://127.0.0.1:1\n"), done.stderr
    assert opened.read_text() == "http://127.0.0.1:1\n"

    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    Watch()({"view": "http://127.0.0.1:1"})
    assert capsys.readouterr().out == "web view: http://127.0.0.1:1\n"
    assert len(opened.read_text().splitlines()) == 1
