"""Factor types.  To add one: a file here, and its class in FACTOR_TYPES."""

from dsg_ros.core.factors.base import Factor, Kernel
from dsg_ros.core.factors.between import Registration
from dsg_ros.core.factors.loop import Loop
from dsg_ros.core.factors.odometry import OdomSE3
from dsg_ros.core.factors.prior import PosePrior, VoxelPrior
from dsg_ros.core.factors.voxel_observation import VoxelPointObs, VoxelSensorObs

FACTOR_TYPES: tuple[type[Factor], ...] = (
    PosePrior,
    VoxelPrior,
    OdomSE3,
    Registration,
    Loop,
    VoxelPointObs,
    VoxelSensorObs,
)
"""Every factor type; a problem stacks its rows in this order."""

__all__ = [
    "FACTOR_TYPES",
    "Factor",
    "Kernel",
    "Loop",
    "OdomSE3",
    "PosePrior",
    "Registration",
    "VoxelPointObs",
    "VoxelPrior",
    "VoxelSensorObs",
]
