"""The node's settings: those of the pipeline, and of its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc

from dsg_ros.config.setting import Range
from dsg_ros.config.slam import Slam


@dataclass(frozen=True)
class Qos:
    """Quality of service of one subscription."""

    reliability: Annotated[Literal["best_effort", "reliable"], Doc("best_effort hears every publisher")] = "best_effort"
    depth: Annotated[int, Doc("Messages kept in the middleware's queue"), Range(1, 10000)] = 20


@dataclass(frozen=True)
class InputQos:
    """Quality of service by topic."""

    odom: Qos = Qos(depth=200)
    points: Qos = Qos()
    scan: Qos = Qos()


@dataclass(frozen=True)
class Node(Slam):
    """The ROS node: the pipeline's settings and those of its surroundings."""

    map_frame: Annotated[str, Doc("Frame of the map")] = "map"
    odom_frame: Annotated[str, Doc("Frame of the odometry; empty: as the messages say")] = ""
    base_frame: Annotated[str, Doc("Frame of the robot's base; empty: the odometry's child_frame_id")] = ""
    frame_prefix: Annotated[
        str,
        Doc("As robot1/: put before the frames of messages and parameters that lack it; one given as /map has none"),
    ] = ""
    tf_rate: Annotated[float, Doc("Broadcasts of map->odom a second"), Range(1.0, 200.0, "Hz")] = 50.0
    transform_tolerance: Annotated[float, Doc("How far map->odom is dated ahead"), Range(0.0, 5.0, "s")] = 0.1
    publish_odom_tf: Annotated[bool, Doc("Also broadcast odom->base, for bags without that transform")] = False
    publish_extrinsic_tf: Annotated[
        bool, Doc("Also broadcast base->SENSOR_learned, where the sensor sits by what was learned")
    ] = False
    map_rate: Annotated[float, Doc("Publications of path and voxels a second, at most"), Range(0.1, 50.0, "Hz")] = 2.0
    grid_rate: Annotated[
        float,
        Doc("Publications of the occupancy grid a second, at most (nor more than map_rate)"),
        Range(0.05, 10.0, "Hz"),
    ] = 1.0
    chunk: Annotated[float, Doc("Voxels are sent in markers of this edge"), Range(0.5, 1000.0, "m")] = 8.0
    voxel_colour: Annotated[
        Literal["points", "height", "age", "deviation"],
        Doc("What colours of ~/voxels tell: how many points, height, when last seen, how well known"),
    ] = "points"
    sensors: Annotated[
        Literal["auto", "scan", "points"],
        Doc("Topics to map with; auto listens to both, expects scan and compiles again if points come first"),
    ] = "auto"
    reference_message: Annotated[
        Literal["pose", "odometry", "navsat"],
        Doc(
            "Type of the topic reference: PoseWithCovarianceStamped, Odometry or NavSatFix; heard where "
            "learning.teacher says so"
        ),
    ] = "pose"
    identity_extrinsic: Annotated[
        bool, Doc("Take base and sensor as one frame where TF has no transform between them")
    ] = False
    autostart: Annotated[bool, Doc("Configure and activate without a lifecycle manager")] = True
    bond_heartbeat_period: Annotated[
        float, Doc("Between heartbeats to Nav2's lifecycle manager, of an active node; 0: none"), Range(0.0, 10.0, "s")
    ] = 0.25
    output_folder: Annotated[str, Doc("Where ~/save writes; empty: saving is refused with that reason")] = ""
    map_folder: Annotated[
        str,
        Doc("Folder of the map: ~/save and checkpoints write it, localisation, ~/load and resume read it; empty: none"),
    ] = ""
    checkpoint_period: Annotated[
        float, Doc("The state is kept in map_folder, where that is set, this often; 0: never"), Range(0.0, 3600.0, "s")
    ] = 30.0
    resume: Annotated[
        bool, Doc("Go on from the checkpoint in map_folder, if there is one, instead of making a new map")
    ] = False
    localisation: Annotated[bool, Doc("Localise in the map of map_folder instead of making one")] = False
    view: Annotated[Literal["none", "web"], Doc("web: map, trajectories and curves live in a browser")] = "none"
    view_host: Annotated[str, Doc("Address the web view listens on; the default cannot be reached from elsewhere")] = (
        "127.0.0.1"
    )
    view_port: Annotated[int, Doc("Port of the web view; 0: one that is free"), Range(0, 65535)] = 8080
    queue: Annotated[int, Doc("Scans waiting for the pipeline; the oldest is dropped beyond"), Range(1, 10000)] = 100
    qos: InputQos = InputQos()
