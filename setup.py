"""Packaging for pip and colcon (ament_python).  package.xml holds what rosdep installs, this file the libraries."""

from glob import glob

from setuptools import find_packages, setup

package_name = "dsg_ros"

setup(
    name=package_name,
    version="0.1.0",
    description="Online hybrid SLAM that learns its own calibration, in one differentiable factor graph",
    license="Apache-2.0",
    maintainer="dsg_ros developers",
    maintainer_email="dsg_ros@users.noreply.github.com",
    python_requires=">=3.11",
    packages=find_packages(include=[package_name, f"{package_name}.*"]),
    package_data={package_name: ["py.typed", "**/templates/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{package_name}/config", sorted(glob("config/*.yaml") + glob("config/*.rviz") + glob("config/*.xml"))),
    ],
    # `make test-oldest` runs with the lower bounds.  Those of NumPy and JAX make Ubuntu 24.04 with Jazzy possible.
    # SciPy's, matplotlib's and typing_extensions' are beyond Ubuntu's releases: README's pip line names them.
    install_requires=[
        'backports.zstd>=1.0; python_version < "3.14"',
        "equinox>=0.12.2",
        "evo>=1.36.5",
        "flatbuffers>=23.5.26",
        "jax>=0.6.2",
        "jaxlie>=1.5",
        "jaxtyping>=0.3.2",
        "jinja2>=3.1.2",
        "llvmlite>=0.44",
        "lz4>=4.3",
        "matplotlib>=3.8",
        "numba>=0.61.2",
        "numpy>=1.26",
        "optax>=0.2.5",
        "pillow>=10.2",
        "PyYAML>=6.0.1",
        "rich>=13.7",
        "rosbags>=0.10.10",
        "scipy>=1.12",
        "typing_extensions>=4.13",
        "tyro>=0.9.24",
    ],
    # fleet: `learn --ray` alone, a cluster's workers share a fleet's logs.  web: the web view.
    extras_require={"fleet": ["ray>=2.40"], "web": ["viser>=1.1.0"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "dsg_ros = dsg_ros.cli:main",
            "hero_node = dsg_ros.ros.main:main",
            "hero_simulator = dsg_ros.ros.simulator:main",
        ],
    },
)
