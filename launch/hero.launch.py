"""Map a bag or a robot with hero_node, or, with no argument, watch the tutorial being learned.

ros2 launch dsg_ros hero.launch.py                              # the HERO tutorial, live
ros2 launch dsg_ros hero.launch.py bag:=killian rate:=10        # a recording
ros2 launch dsg_ros hero.launch.py simulator:=false             # a robot that publishes odom and scan or points
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

SHARE = Path(get_package_share_directory("dsg_ros"))
SHOWN = ("/hero/path", "/hero/voxels", "/hero/voxel_cloud", "/hero/pose", "/hero/graph", "/map", "/map_updates")
"""Topics of config/hero.rviz: those of a node without a namespace."""
WARM_UP = 600
"""Longest wait [s] of the player for hero_node, which listens when it has compiled everything: minutes, the first time,
on a slow machine."""
ARGUMENTS = {
    "params_file": (str(SHARE / "config" / "hero.yaml"), "Parameters of hero_node"),
    "use_sim_time": ("auto", "Follow /clock (true, false, or auto: with a bag)"),
    "rviz": ("true", "Open rviz2 with config/hero.rviz, where it is installed"),
    "bag": ("", "Bag to play; empty: the tutorial's simulator, or a robot"),
    "rate": ("1.0", "How many times faster than recorded the bag is played"),
    "view": (
        "",
        "web: map and curves of hero_node live in a browser, at http://127.0.0.1:8080; empty: as the parameters say",
    ),
    "namespace": ("", "Namespace of the node"),
    "frame_prefix": ("", "Put before the robot's frames, as robot1/; empty: as the parameters say"),
    "simulator": ("auto", "The tutorial's simulator instead of hero_node (true, false, or auto: without a bag)"),
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; what is started depends on their values."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The processes for the arguments as given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    bag, namespace = given["bag"], given["namespace"].strip("/")
    sim_time = truth("use_sim_time", given["use_sim_time"], auto=bool(bag))
    if truth("simulator", given["simulator"], auto=not bag):
        tutorial = {"package": "dsg_ros", "executable": "hero_simulator", "name": "hero"}
        started = [Node(**tutorial, namespace=namespace, output="screen")]
        sim_time = False
        if given["view"] == "web":
            started.append(LogInfo(msg="view:=web shows hero_node; the tutorial is seen in rviz"))
    else:
        more = {name: given[name] for name in ("view", "frame_prefix") if given[name]}
        started = [mapper(given["params_file"], namespace, sim_time, more, remap=bool(bag))]
    if bag:
        play = ["play", bag, "--rate", given["rate"], "--wait", str(WARM_UP)]
        command = [ExecutableInPackage("dsg_ros", "dsg_ros"), *play]
        started.append(ExecuteProcess(cmd=command, name="player", output="screen"))
    if truth("rviz", given["rviz"]):
        started.append(rviz(namespace, given["frame_prefix"], sim_time))
    return started


def mapper(params_file: str, namespace: str, sim_time: bool, more: dict[str, str], remap: bool) -> Node:
    """hero_node.  A bag's topics keep their recorded names, so a node in a namespace is pointed to them."""
    topics = ("odom", "scan", "points")
    return Node(
        package="dsg_ros",
        executable="hero_node",
        name="hero",
        namespace=namespace,
        parameters=[params_file, {"use_sim_time": sim_time, **more}],
        remappings=[(topic, f"/{topic}") for topic in topics] if remap and namespace else [],
        output="screen",
        # On Ctrl-C it refines and saves the map, which takes longer than the five seconds that launch would give it.
        sigterm_timeout="120",
        sigkill_timeout="60",
    )


def rviz(namespace: str, frame_prefix: str, sim_time: bool) -> LaunchDescriptionEntity:
    """rviz2 with this package's view of the node's topics."""
    fixed = ["-f", f"{frame_prefix}map"] if frame_prefix else []
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        return LogInfo(msg="rviz2 is not installed: going on without it (rviz:=false to silence this)")
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "config" / "hero.rviz"), *fixed],
        parameters=[{"use_sim_time": sim_time}],
        remappings=[(topic, f"/{namespace}{topic}") for topic in SHOWN] if namespace else [],
    )


def truth(name: str, text: str, auto: bool | None = None) -> bool:
    """The meaning of a true/false argument; ``auto`` where that is allowed."""
    known = {"true": True, "false": False} | ({"auto": auto} if auto is not None else {})
    value = known.get(text.strip().lower())
    if value is None:
        raise RuntimeError(f"{name}:={text}: expected {', '.join(known)}")
    return value
