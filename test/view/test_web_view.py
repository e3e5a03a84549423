"""The web view's server, with the connection of a browser and without the browser."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from view_client import PROTOCOL, Client, join, msgspec
from view_estimates import estimate, voxels
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dsg_ros.aside import Aside
from dsg_ros.errors import UserError
from dsg_ros.memory import resident_bytes
from dsg_ros.view.page import Server
from dsg_ros.view.update import Health, Settings
from dsg_ros.view.web import SERVE, WebView, loopback

LOOPBACK = "0100007F"  # 127.0.0.1, as /proc/net/tcp writes it
LISTENING = "0A"


class Watched:
    """A view with what it said."""

    def __init__(self, **more: object) -> None:
        self.said: list[tuple[str, str]] = []
        self.view = WebView("127.0.0.1", 0, lambda level, text: self.said.append((level, text)), **more)
        self.view.start()
        self.url = self.view.wait(60.0)
        assert self.url, self.said

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.view._aside._process.pid


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.view.stop()


def listening(port: int) -> list[str]:
    """Local addresses on which this machine listens on ``port``, as the kernel writes them."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == LISTENING and int(number, 16) == port:
                found.append(address)
    return found


def test_it_listens_on_loopback_alone_and_serves_the_page(watched):
    assert listening(watched.port) == [LOOPBACK]
    with socket.create_connection(("127.0.0.1", watched.port), timeout=10.0) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)
    assert ("info", f"web view: {watched.url}") in watched.said
    assert not [text for level, text in watched.said if level != "info"]


@pytest.mark.parametrize(
    ("host", "only_here"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("192.168.1.5", False)],
)
def test_an_address_that_others_reach_is_known(host, only_here):
    assert loopback(host) is only_here


def test_who_can_be_reached_from_elsewhere_is_warned():
    said = []
    view = WebView("0.0.0.0", 0, lambda level, text: said.append((level, text)))
    view.start()
    try:
        assert view.wait(60.0).startswith("http://localhost:")
        port = int(view.url.rpartition(":")[2])
        assert listening(port) == ["00000000"]
    finally:
        view.stop()
    assert [level for level, _ in said] == ["info", "warning"]


def test_a_port_that_is_taken_is_told_before_anything_starts():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        view = WebView("127.0.0.1", port, print)
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1, port {port} .*choose another view_port"):
            view.start()
        view.stop()
        # Taken only after it was tried: the server would go on to the next port.
        with Aside(SERVE) as page:
            page.send(Settings("127.0.0.1", port, 8.0))
            with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is taken"):
                next(page)


def test_a_host_that_is_none_is_told():
    with pytest.raises(UserError, match=r"cannot listen on 203\.0\.113\.7, port 0 .*see view_host"):
        WebView("203.0.113.7", 0, print).start()


def test_what_is_mapped_and_learned_arrives_and_changes(watched):
    view = watched.view
    points = np.array([[0.5, 0.5, 0.0], [1.0, 0.5, 0.0], [20.0, 0.5, 1.0]])
    view.take(estimate(3, voxels(points)))
    view.tell(Health(1.0, {"scans in": 5.0}, {"queue_full": 0}))
    with Client(watched.url) as client:
        client.until(lambda c: c.voxels == 3 and c.chart("rates"), "voxels and rates")
        drawn = np.concatenate(list(client.clouds.values()))
        assert sorted(drawn.tolist()) == points.tolist()
        assert len(client.clouds) == 2  # chunks of 8 m
        assert np.allclose(client.lines["/map/mapped"][:, :, 0], [[0, 1], [1, 2]])
        assert np.allclose(client.lines["/map/loops"][0, :, 0], [0, 2])

        for keyframes in range(4, 8):
            view.take(
                estimate(keyframes, voxels(points[:1] + np.array([0, keyframes, 0]), (2,)), scale=1.0 + keyframes / 100)
            )
        view.tell(Health(2.0, {"scans in": 6.0}, {"queue_full": 4}))
        client.until(lambda c: c.voxels == 2, "removal of a voxel")
        assert np.allclose(client.lines["/map/odometry"][-1, 1, :2], [2 + 1.05 * 4, 0.0])  # laid on the first pose
        scale = client.until(lambda c: c.chart("odometry.scale"), "curve of the scale")
        client.until(lambda c: len(scale["data"][0]) == 5, "five keyframes in the curve")
        assert np.allclose(scale["data"][1], [1.0, 1.04, 1.05, 1.06, 1.07])
        assert np.allclose(scale["data"][3] - scale["data"][2], 0.04)  # two standard deviations on either side
        assert np.allclose(client.chart("held-out loss")["data"][1][-1], 2.0 / 7)
        client.until(lambda c: np.allclose(c.chart("dropped")["data"][1], [0.0, 4.0]), "drops")
        client.until(lambda c: "21 scans, 7 keyframes, 1 loops, 2 voxels" in c.texts.values(), "the summary")

    with Client(watched.url) as late:
        late.until(lambda c: c.voxels == 2 and c.chart("odometry.scale"), "everything, for one who comes late")

        view.clear()
        view.take(estimate(1, voxels(points[:1])))
        late.until(lambda c: c.voxels == 1 and len(c.chart("odometry.scale")["data"][0]) == 1, "the new map alone")
        assert len(late.lines["/map/loops"]) == 1
        assert not len(late.lines["/map/odometry"])


def read_out(connection: ClientConnection, patience: float) -> str:
    """Take what comes until nothing does; why the other side closed, if it did."""
    try:
        while True:
            connection.recv(timeout=patience)
    except TimeoutError:
        return ""
    except ConnectionClosed as closed:
        return str(closed)


def test_garbage_breaks_nothing_and_fills_no_log(watched, caplog, capfd):
    random.seed(3)
    watched.view.take(estimate(3, voxels(np.eye(3))))
    messages = [
        b"", b"\x00" * 100, random.randbytes(5000), "text", msgspec.msgpack.encode({"type": "NoSuchMessage"}),
        msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": 1}}),
        msgspec.msgpack.encode({"type": "ViewerCameraMessage", "wxyz": "nonsense"}),
        msgspec.msgpack.encode([1, 2, 3]),
    ]  # fmt: skip
    for message in messages * 3:
        with join(watched.url) as client:
            client.send(message)
            read_out(client, 0.3)
    with connect(watched.url.replace("http", "ws"), proxy=None) as stranger:
        assert "Version mismatch" in read_out(stranger, 5.0)
    for raw in (b"\x16\x03\x01 TLS?", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", random.randbytes(3000)):
        with socket.create_connection(("127.0.0.1", watched.port), timeout=10.0) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda c=connection: received(c), b""))
            assert b"root:" not in answer
    with Client(watched.url) as client:
        client.until(lambda c: c.voxels == 3, "the map, for an honest client")
    assert watched.view.url
    assert [level for level, _ in watched.said] == ["info"]
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 3, lines  # one in ten seconds
    assert all("a client's connection failed" in line for line in lines)
    assert capfd.readouterr() == ("", "")


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""


def test_a_client_that_never_reads_costs_neither_time_nor_memory(watched):
    rng = np.random.default_rng(1)
    n = 20_000
    silent = []
    for _ in range(3):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", watched.port))
        connection.sendall(handshake(watched.port))
        silent.append(connection)
    watched.view.take(estimate(2, voxels(rng.uniform(-20, 20, (n, 3)))))
    with Client(watched.url) as client:
        client.until(lambda c: c.voxels == n, "the first map")
        before, slowest = resident_bytes(watched.pid), 0.0
        for keyframes in range(3, 33):
            change = voxels(rng.uniform(-20, 20, (n, 3)))
            began = time.perf_counter()
            watched.view.take(estimate(keyframes, change))
            slowest = max(slowest, time.perf_counter() - began)
            found = lambda c, count=3 * keyframes: any(t.startswith(f"{count} scans") for t in c.texts.values())  # noqa: E731
            client.until(found, f"keyframe {keyframes}")
        assert client.voxels == n
        grown = resident_bytes(watched.pid) - before
    for connection in silent:
        connection.close()
    assert slowest < 5.0, "taking an estimate waited for a client"
    # Thirty maps for three clients are 36 MB.
    assert grown < 24e6, f"{grown / 1e6:.0f} MB"


def handshake(port: int) -> bytes:
    lines = [
        "GET / HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {PROTOCOL}", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def test_no_client_can_open_the_page_to_the_internet():
    server = Server("127.0.0.1", 0, verbose=False)
    try:
        assert server.request_share_url() is None
        assert server._share_tunnel is None
    finally:
        server.stop()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("stopped", [False, True], ids=["at work", "hanging"])
def test_nothing_is_left_when_it_ends(stopped):
    watched = Watched()
    if stopped:
        os.kill(watched.pid, signal.SIGSTOP)
        watched.view.take(estimate(2))
        time.sleep(0.5)
    pid, began = watched.pid, time.monotonic()
    watched.view.stop()
    assert time.monotonic() - began < 10.0
    assert gone(pid)
    assert listening(watched.port) == []
    assert not watched.view.url
    assert [level for level, _ in watched.said] == ["info"]
    watched.view.take(estimate(3))  # who still has it needs not know


def test_a_page_that_dies_is_told_of_and_harms_nothing(watched):
    os.kill(watched.pid, signal.SIGKILL)
    watched.view.take(estimate(2))
    watched.view._thread.join(20.0)
    level, text = watched.said[-1]
    assert level == "error"
    assert re.search(r"the web view has ended, all else goes on: .*ended with code -9", text)
    watched.view.take(estimate(3))


def test_the_page_goes_with_a_process_that_is_killed():
    program = (
        "import time; from dsg_ros.view.web import WebView\n"
        "view = WebView('127.0.0.1', 0, lambda level, text: None); view.start(); view.wait(60)\n"
        "print(view._aside._process.pid, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20.0
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(pid)


@pytest.mark.parametrize("module", ["dsg_ros.ros.node", "dsg_ros.commands.run", "dsg_ros.view.web"])
def test_nothing_of_it_is_loaded_by_who_is_shown(module):
    program = f"import sys, {module}; print(*sorted({{'viser', 'websockets', 'trimesh'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
