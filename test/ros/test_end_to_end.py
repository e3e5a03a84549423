"""A real robot's scans through a player process, DDS, the node process and its worker, to a listener here."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import numpy as np
import pytest
import yaml
from dds import Graph, NodeProgram, Program, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import OccupancyGrid, Path
from PIL import Image
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from dsg_ros.commands import convert
from dsg_ros.commands.demo import find_run
from dsg_ros.io import learned, pointfile, trajectories
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert as messages

SCANS = 120
RATE = 40.0
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Run:
    """What the session left: the listener, the player's report, the node's figures and files."""

    def __init__(self, graph, node, sent, status) -> None:
        self.graph, self.node, self.sent, self.status = graph, node, sent, status


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    pytest.importorskip("rtbdata", reason="the recording comes with the package rtb-data")
    bag = tmp_path_factory.mktemp("bag") / "killian"
    convert.main(convert.Options(log=find_run(), bag=bag, limit=SCANS))
    return bag


@pytest.fixture(scope="module")
def run(bag, tmp_path_factory):
    folder, domain = tmp_path_factory.mktemp("run"), free_domain()
    reliable = {f"qos.{topic}.reliability": "reliable" for topic in ("odom", "scan")}
    parameters = {"use_sim_time": "true", "qos.scan.depth": 100, "queue": 1000, **reliable}
    graph = Graph(domain)
    graph.listen("/tf", TFMessage, 1000)
    graph.listen("/diagnostics", DiagnosticArray, 100)
    graph.listen("/hero/pose", PoseWithCovarianceStamped, 1000)
    graph.listen("/hero/path", Path, LATCHED)
    graph.listen("/hero/voxels", MarkerArray, LATCHED)
    graph.listen("/hero/graph", MarkerArray, LATCHED)
    with NodeProgram(["-m", "dsg_ros", "node"], folder / "out", domain, **parameters) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        play = ["-m", "dsg_ros", "play", str(bag), "--rate", str(RATE), "--json"]
        with Program(play, folder / "player.log", domain) as player:
            assert player.process.wait(120) == 0, player.text
            sent = json.loads(player.text.splitlines()[-1])["sent"]
        status = node.wait(lambda s: s["scans"]["processed"] >= sent["/scan"], "every scan processed")
        wait_until(lambda: len(graph.messages("/hero/pose")) >= sent["/scan"], "every pose")
        yield Run(graph, node, sent, status)
    graph.close()


def test_every_message_is_accounted_for(run):
    scans, odometry = run.status["scans"], run.status["odometry"]
    assert run.sent == {"/odom": SCANS, "/scan": SCANS, "/tf": SCANS, "/tf_static": 1}
    assert (scans["received"], scans["processed"], scans["lost"]) == (SCANS, SCANS, 0)
    assert (odometry["received"], odometry["lost"], odometry["refused"]) == (SCANS, 0, {})
    assert scans["dropped"] == {}
    assert scans["waiting"] == 0


def test_nothing_compiles_while_running(run):
    assert run.status["compilations_after_warm_up"] == 0


def test_map_to_odom_comes_steadily_and_never_twice_with_one_stamp(run):
    own = [
        (at, transform)
        for at, message in run.graph.heard["/tf"]
        for transform in message.transforms
        if transform.header.frame_id == "map"
    ]
    assert {t.child_frame_id for _, t in own} == {"odom"}
    stamps = [messages.nanoseconds(t.header.stamp) for _, t in own]
    assert all(b > a for a, b in pairwise(stamps))
    played = SCANS / RATE  # seconds: the recording has two scans a second of its own
    assert len(own) > 10 * played
    for _, transform in own:
        assert np.isclose(np.linalg.norm(messages.transform_pose(transform)[3:]), 1.0)
    told = run.status["map_to_odom"]
    assert told["published"] >= len(own)
    assert told["largest_gap_s"] > 0


def test_poses_have_the_stamps_of_the_scans_and_real_covariances(run):
    poses = run.graph.messages("/hero/pose")
    stamps = [messages.nanoseconds(p.header.stamp) for p in poses]
    assert len(set(stamps)) == SCANS
    assert {p.header.frame_id for p in poses} == {"map"}
    covariances = np.array([p.pose.covariance for p in poses]).reshape(-1, 6, 6)
    np.testing.assert_allclose(covariances, covariances.transpose(0, 2, 1), atol=1e-12)
    assert np.linalg.eigvalsh(covariances).min() > -1e-12
    sigmas = np.sqrt(covariances[1:, 0, 0])
    assert 0 < np.median(sigmas) < 1.0
    assert len(np.unique(np.round(sigmas, 9))) > 10


def test_the_path_holds_the_keyframes(run):
    wait_until(lambda: len(run.graph.messages("/hero/path")[-1].poses) == run.status["keyframes"], "the whole path")
    path = run.graph.messages("/hero/path")[-1]
    assert path.header.frame_id == "map"
    stamps = [messages.nanoseconds(p.header.stamp) for p in path.poses]
    assert stamps == sorted(stamps)
    assert 10 < len(path.poses) <= SCANS


def test_voxels_come_in_chunks_of_cubes(run):
    markers = [marker for message in run.graph.messages("/hero/voxels") for marker in message.markers]
    latest = {marker.id: marker for marker in markers if marker.action == Marker.ADD}
    assert {m.type for m in latest.values()} == {Marker.CUBE_LIST}
    assert len(latest) > 1
    for marker in latest.values():
        assert len(marker.points) == len(marker.colors) > 0
        assert marker.scale.x == marker.scale.y == marker.scale.z > 0
        assert (marker.ns, marker.header.frame_id, marker.pose.orientation.w) == ("voxels", "map", 1.0)


def test_what_the_map_rests_on_is_drawn(run):
    newest = run.graph.messages("/hero/pose")[-1].pose.pose.position
    drawn = wait_until(
        lambda: [
            markers
            for message in run.graph.messages("/hero/graph")
            if (markers := {m.ns: m for m in message.markers})["position"].pose.position == newest
        ],
        "markers of the last pose",
    )[-1]
    sure, text, loops = drawn["position"], drawn["theta"], drawn["loops"]
    assert (sure.type, sure.header.frame_id) == (Marker.SPHERE, "map")
    assert 0.02 <= min(sure.scale.x, sure.scale.y) <= max(sure.scale.x, sure.scale.y) < 2.0
    assert text.type == Marker.TEXT_VIEW_FACING
    told = {p["name"] for p in run.status["parameters"]}
    assert {line.split()[0] for line in text.text.splitlines()} == told
    assert loops.action == (Marker.ADD if loops.points else Marker.DELETE)
    assert len(loops.points) % 2 == 0


def test_a_listener_that_comes_late_gets_the_whole_map(run):
    run.graph.listen("/hero/voxel_cloud", PointCloud2, LATCHED)
    clouds = wait_until(lambda: run.graph.messages("/hero/voxel_cloud"), "the latched cloud")
    points = messages.cloud_points(clouds[-1]).points
    assert len(points) > 100
    late = Graph(run.graph.context.get_domain_id())
    try:
        late.listen("/hero/voxels", MarkerArray, LATCHED)

        def cubes():
            latest = {m.id: len(m.points) for message in late.messages("/hero/voxels") for m in message.markers}
            return sum(latest.values()) == len(points)

        wait_until(cubes, "every voxel as a cube")
    finally:
        late.close()


def free_cells(message: OccupancyGrid) -> np.ndarray:
    """Places (n, 2) in map of the middles of free cells."""
    info = message.info
    cells = np.array(message.data, np.int8).reshape(info.height, info.width)
    rows, columns = np.nonzero(cells == 0)
    corner = np.array([info.origin.position.x, info.origin.position.y])
    return (np.column_stack([columns, rows]) + 0.5) * info.resolution + corner


def test_the_grid_is_free_where_the_robot_was(run):
    run.graph.listen("/map", OccupancyGrid, LATCHED)
    message = wait_until(lambda: run.graph.messages("/map"), "a map", details=lambda: run.node.text)[-1]
    assert message.header.frame_id == "map"
    assert set(np.unique(message.data).tolist()) == {-1, 0, 100}
    free = free_cells(message)
    assert len(free) * message.info.resolution**2 > 20.0, "square metres"
    for stamped in run.graph.messages("/hero/path")[-1].poses:
        at = stamped.pose.position
        # Beams begin at the sensor: the cell of the base itself may be beside all of them.
        assert np.abs(free - (at.x, at.y)).max(axis=1).min() <= 1.5 * message.info.resolution


def test_diagnostics_tell_what_is_learned_and_how_fast(run):
    latest = run.graph.messages("/diagnostics")[-1]
    told = {status.name: {v.key: v.value for v in status.values} for status in latest.status}
    assert int(told["/hero: scans"]["processed"]) == SCANS
    assert float(told["/hero: callbacks"]["p99_ms"]) > 0
    assert float(told["/hero: memory_bytes"]["worker"]) > 1e8
    names = {key.rpartition(".")[0] for key in told["/hero: parameters"]}
    assert names == {parameter["name"] for parameter in run.status["parameters"]}
    assert {"value", "sigma", "status"} <= {key.rpartition(".")[2] for key in told["/hero: parameters"]}


def test_theta_is_what_status_json_says_of_the_parameters(run):
    run.graph.listen("/hero/theta", DiagnosticArray, LATCHED)
    newest = wait_until(lambda: run.graph.messages("/hero/theta"), "the latched theta")[-1]
    told = {status.name: {v.key: v.value for v in status.values} for status in newest.status}
    expected = {p["name"]: p for p in run.status["parameters"]}
    assert told.keys() == expected.keys() > {"odometry.scale", "odometry.lever.x"}
    for name, values in told.items():
        assert float(values["value"]) == expected[name]["value"]
        assert float(values["sigma"]) == expected[name]["sigma"]
        assert {values[k] == expected[name][k] for k in ("unit", "status", "reason")} == {True}


def test_a_what_if_on_the_present_graph(run):
    run.graph.listen("/hero/what_if_result", DiagnosticArray, LATCHED)
    ask = run.graph.node.create_publisher(KeyValue, "/hero/what_if", 10)
    wait_until(ask.get_subscription_count, "a subscription to what_if")
    time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more
    ask.publish(KeyValue(key="scale", value="+1 %"))
    (answer,) = wait_until(
        lambda: run.graph.messages("/hero/what_if_result"), "an answer", details=lambda: run.node.text
    )
    (status,) = answer.status
    figures = {v.key: v.value for v in status.values}
    assert status.level == DiagnosticStatus.OK, status.message
    assert status.message.startswith("odometry.scale ")
    assert "moves the last pose by " in status.message
    assert (figures["asked_parameter"], figures["asked_change"]) == ("scale", "+1 %")
    assert int(figures["keyframes"]) == run.status["keyframes"]
    assert float(figures["change"]) == pytest.approx(0.01 * float(figures["value"]))
    assert float(figures["disagreement"]) < 0.05
    # Some metres of the Killian Court in one direction: odometry alone moves by a hundredth of them.
    assert 0.0 < float(figures["last_pose_m"]) < 1.5 * float(figures["odometry_alone_last_pose_m"])


def test_diagnostics_tell_the_rate_of_every_input(run):
    inputs = [s.values for m in run.graph.messages("/diagnostics") for s in m.status if s.name == "/hero: inputs"]
    told = [{v.key: v.value for v in values} for values in inputs]
    for name in ("odom", "scan"):
        assert max(float(values[f"{name}.rate_hz"]) for values in told) > 1.0
    assert float(told[-1]["points.rate_hz"]) == 0.0


def test_parameters_change_while_running_or_say_why_not(run):
    def change(name: str, **value):
        request = SetParameters.Request(parameters=[Parameter(name=name, value=ParameterValue(**value))])
        return run.graph.call("/hero/set_parameters", SetParameters, request).results[0]

    assert change("tf_rate", type=ParameterType.PARAMETER_DOUBLE, double_value=30.0).successful
    refused = change("tf_rate", type=ParameterType.PARAMETER_DOUBLE, double_value=1000.0)
    assert not refused.successful
    assert "tf_rate" in refused.reason
    fixed = change("keyframes.distance", type=ParameterType.PARAMETER_DOUBLE, double_value=1.0)
    assert not fixed.successful
    assert "read-only" in fixed.reason


def test_save_then_reset_then_the_end_leaves_whole_files(run):
    """The last test of the run: it ends it."""
    folder = run.node.folder
    saved = run.graph.call("/hero/save", Trigger, Trigger.Request())
    assert saved.success, saved.message
    assert run.node.served("save").startswith("saved to")
    assert len(trajectories.read_tum(folder / "trajectory.tum")[0]) == SCANS
    clouds = run.graph.messages("/hero/voxel_cloud")
    assert len(pointfile.read_ply(folder / "map.ply").means) == messages.cloud_points(clouds[-1]).points.shape[0]
    described = yaml.safe_load((folder / "map.yaml").read_text())
    with Image.open(folder / described["image"]) as image:
        pixels = np.asarray(image)[::-1]
    # Keyframes that moved by less than grid.moved are drawn where they were on the topic.
    free = free_cells(run.graph.messages("/map")[-1])
    columns, rows = np.floor((free - described["origin"][:2]) / described["resolution"]).astype(int).T
    assert (pixels[rows, columns] == 254).mean() > 0.95
    assert run.node.interrupt() == 0
    assert run.node.status()["state"] == "saved"
    assert "Traceback" not in run.node.text
    assert json.loads((folder / "report.json").read_text())["summary"]["scans"] == SCANS
    assert {p.name for p in learned.read_learned(folder / "learned.yaml").parameters}


def test_the_life_cycle_without_a_pipeline_of_weight(tmp_path, fake_node):
    """Configured and activated by hand; reset answers; deactivated it hears nothing; cleaned up it starts again."""
    domain = free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, tmp_path / "out", domain, autostart="false") as node:

        def change(transition: int) -> bool:
            if transition == Transition.TRANSITION_CONFIGURE:  # what the file tells is of the former worker
                (tmp_path / "out" / "status.json").unlink(missing_ok=True)
            request = ChangeState.Request(transition=Transition(id=transition))
            return graph.call("/hero/change_state", ChangeState, request).success

        refused = graph.call("/hero/save", Trigger, Trigger.Request())
        assert not refused.success
        assert "not configured" in refused.message
        for _ in range(2):
            assert change(Transition.TRANSITION_CONFIGURE)
            node.wait(lambda s: s["state"] == "ready", "ready worker")
            assert change(Transition.TRANSITION_ACTIVATE)
            assert graph.call("/hero/reset", Trigger, Trigger.Request()).success
            assert change(Transition.TRANSITION_DEACTIVATE)
            assert change(Transition.TRANSITION_CLEANUP)
        assert change(Transition.TRANSITION_CONFIGURE)
        node.wait(lambda s: s["state"] == "ready", "ready worker")
        answer = graph.call("/hero/save", Trigger, Trigger.Request())
        assert answer.success, answer.message
        graph.close()
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
