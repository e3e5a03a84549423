"""Random rows of every factor type, and worlds made of them."""

import numpy as np

from dsg_ros import poses
from dsg_ros.core.factors import (
    FACTOR_TYPES,
    Factor,
    Loop,
    OdomSE3,
    PosePrior,
    Registration,
    VoxelPointObs,
    VoxelPrior,
    VoxelSensorObs,
    base,
)
from dsg_ros.core.theta import SPECS, Theta, to_float64
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import WorldModel


def random_pose(rng, angle=1.0):
    return poses.exp(np.concatenate([rng.normal(size=3), angle * rng.normal(size=3)]))


def random_theta(rng, size=0.1, odom=2, obs=2):
    theta = Theta.neutral(odom, obs)
    leaves = {name: np.asarray(size * rng.normal(size=np.shape(getattr(theta, name)))) for name in SPECS}
    return to_float64(Theta(**leaves))


def random_fields(cls: type[Factor], rng) -> dict:
    """Data of one row, all different from neutral."""
    fields = {"weight": 0.7, "kernel": int(base.Kernel.CAUCHY), "kernel_width": 1.3}
    for name, default in base.data_fields(cls).items():
        if name in fields:
            continue
        if name in ("mean", "measured", "base_from_sensor") and default.shape == (7,):
            fields[name] = random_pose(rng, 0.6)
        elif name in ("sigma", "duration") or name.startswith("sigma_"):
            fields[name] = 0.5 + rng.uniform(size=default.shape)
        elif name == "learned":
            fields[name] = -1
        elif name == "sqrt_info":
            fields[name] = np.eye(len(default)) + 0.3 * rng.normal(size=default.shape)
        else:
            fields[name] = rng.normal(size=default.shape)
    return fields


def random_row(cls: type[Factor], rng):
    """One row, and values for its variables."""
    keys = {f.name: 0 for f in base.key_fields(cls)}
    values = tuple(random_pose(rng) if k is Kind.POSE else rng.normal(size=3) for k in base.kinds(cls))
    return cls(**(keys | {n: np.asarray(v) for n, v in random_fields(cls, rng).items()})), values


ANY_THETA = to_float64(
    Theta.neutral().replace(
        scale=np.asarray(0.03), turn_per_metre=np.asarray(0.05), lever=np.array([0.1, -0.05, 0.02]),
        extrinsic=np.array([0.1, 0.2, -0.1, 0.02, -0.03, 0.05]), odometry_noise=np.linspace(-0.5, 0.5, 6),
        registration_noise=np.asarray(0.3), loop_noise=np.asarray(-0.2), voxel_noise=np.asarray(0.4),
        bias=np.linspace(0.0, 0.01, 6),
    )
)  # fmt: skip
"""Every leaf that rows share away from 0."""


def small_world(types=FACTOR_TYPES, count=5, seed=0, noise=0.03, learned=False, loops=True):
    """A closed chain of poses seeing voxels, with rows of ``types`` and priors that fix the gauge."""
    rng = np.random.default_rng(seed)
    true = [random_pose(rng, 0.3)]
    for _ in range(count - 1):
        true.append(poses.compose(true[-1], poses.exp(np.r_[1, 0.1, 0, 0.02, 0, 0.4] + 0.1 * rng.normal(size=6))))
    true = np.array(true)
    voxels = 3 * rng.normal(size=(count, 3))
    world = WorldModel()

    def noisy(pose, size=noise):
        return poses.compose(pose, poses.exp(size * rng.normal(size=6)))

    for pose in true:
        world.add_pose(noisy(pose))
    world.add_voxels(voxels + 0.1 * rng.normal(size=voxels.shape))
    for i, pose in enumerate(true):
        world.add(PosePrior, pose=i, mean=noisy(pose), sqrt_info=(5 if i == 0 else 1) * np.eye(6))
    for i, voxel in enumerate(voxels):
        world.add(VoxelPrior, voxel=i, mean=voxel + noise * rng.normal(size=3), sqrt_info=2 * np.eye(3))
    for i in range(count - 1):
        measured = noisy(poses.between(true[i], true[i + 1]))
        if OdomSE3 in types:
            world.add(
                OdomSE3, previous=i, current=i + 1, measured=poses.log(measured), duration=0.4,
                rate=[0.3, -0.1, 0.05, 0.02, -0.03, 0.2],
                sigma_translation=[0.2, 0.1, 0.1], sigma_rotation=[0.1, 0.05, 0.02], learned=i if learned else -1,
            )  # fmt: skip
        if Registration in types:
            measured = noisy(poses.between(true[i], true[i + 1]))
            world.add(Registration, first=i, second=i + 1, measured=measured, sqrt_info=3 * np.eye(6))
    if Loop in types and loops:
        measured = noisy(poses.between(true[0], true[-1]))
        world.add(Loop, first=0, second=count - 1, measured=measured, sqrt_info=2 * np.eye(6))
    for i, voxel in enumerate(voxels):
        if VoxelPointObs in types:
            point = voxel + noise * rng.normal(size=3)
            world.add(VoxelPointObs, voxel=i, point=point, sigma=0.4, learned=i if learned else -1)
        if VoxelSensorObs in types:
            for j in rng.permutation(count)[:2]:
                extrinsic = poses.exp(np.array([0.2, 0.1, 0.0, 0.0, 0.1, 0.2]))
                sensor = poses.compose(true[j], extrinsic)
                point = poses.transform(poses.inverse(sensor), voxel[None])[0] + noise * rng.normal(size=3)
                world.add(
                    VoxelSensorObs, pose=j, voxel=i, point=point, base_from_sensor=extrinsic, sqrt_info=2 * np.eye(3)
                )
    return world
