"""Points that belong to a voxel: known in the world (the tutorial), or seen by a sensor from a pose (real data)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsg_ros import poses
from dsg_ros.core import geometry
from dsg_ros.core.factors.base import Factor, VoxelsKnown, VoxelsSeen, data, pose_key, voxel_key
from dsg_ros.core.methods import host_method
from dsg_ros.core.theta import Theta


class VoxelPointObs(Factor):
    """``voxel`` was observed at ``point`` (3,) [m] in map: error ``voxel - point`` with one deviation ``sigma`` [m].

    A row with ``learned`` >= 0 takes row ``learned`` of theta.obs for its point.
    """

    voxel: Int[Array, ""] = voxel_key()
    point: Float[Array, " 3"] = data(np.zeros(3))
    sigma: Float[Array, ""] = data(1.0)
    learned: Int[Array, ""] = data(-1)

    def error(self, theta: Theta, voxel: Float[Array, " 3"]) -> Float[Array, " 3"]:
        point = self.point
        if theta.obs.shape[0]:
            point = jnp.where(self.learned >= 0, jnp.asarray(theta.obs)[jnp.maximum(self.learned, 0)], point)
        return voxel - point

    def sqrt_information(self, theta: Theta) -> Float[Array, " 3"]:
        return jnp.broadcast_to(jnp.exp(-theta.voxel_noise) / self.sigma, 3)

    def jacobians(self, theta: Theta, voxel: Float[Array, " 3"]) -> tuple[Array, tuple[Array, ...]]:
        return self.error(theta, voxel), (jnp.eye(3),)

    @host_method
    def host_form(self, theta: Theta) -> VoxelsKnown:
        point = np.asarray(self.point)
        if theta.obs.shape[0]:
            learned = np.asarray(self.learned)
            point = np.where(learned[:, None] >= 0, np.asarray(theta.obs)[np.maximum(learned, 0)], point)
        information = np.exp(-np.asarray(theta.voxel_noise)) / np.asarray(self.sigma)
        return VoxelsKnown(point, information[:, None, None] * np.eye(3))


class VoxelSensorObs(Factor):
    """From ``pose`` the sensor saw the voxel's centre at ``point`` (3,) [m], in the sensor frame.

    Error ``(pose base_from_sensor exp(theta.extrinsic))^-1 voxel - point`` (3,) in the sensor frame with ``sqrt_info``
    (3, 3) [1/m]: of full rank for a blob, of rank 1 (times the normal) for a plane patch.  theta.voxel_noise is the
    logarithm of the ratio of the true deviation to the told one.
    """

    pose: Int[Array, ""] = pose_key()
    voxel: Int[Array, ""] = voxel_key()
    point: Float[Array, " 3"] = data(np.zeros(3))
    sqrt_info: Float[Array, "3 3"] = data(np.eye(3))
    base_from_sensor: Float[Array, " 7"] = data(poses.IDENTITY)

    def _sensor(self, theta: Theta) -> Float[Array, " 7"]:
        return geometry.retract(self.base_from_sensor, theta.extrinsic)

    def error(self, theta: Theta, pose: Float[Array, " 7"], voxel: Float[Array, " 3"]) -> Float[Array, " 3"]:
        in_base = geometry.act(geometry.inverse(pose), voxel)
        return geometry.act(geometry.inverse(self._sensor(theta)), in_base) - self.point

    def sqrt_information(self, theta: Theta) -> Float[Array, "3 3"]:
        return self.sqrt_info * jnp.exp(-theta.voxel_noise)

    def jacobians(self, theta: Theta, pose: Array, voxel: Array) -> tuple[Array, tuple[Array, ...]]:
        sensor_from_base = geometry.inverse(self._sensor(theta))
        base_from_map = geometry.inverse(pose)
        in_base = geometry.act(base_from_map, voxel)
        rotation = geometry.rotation_matrix(sensor_from_base)
        by_pose = rotation @ jnp.concatenate([-jnp.eye(3), geometry.skew(in_base)], axis=1)
        by_voxel = rotation @ geometry.rotation_matrix(base_from_map)
        return geometry.act(sensor_from_base, in_base) - self.point, (by_pose, by_voxel)

    @host_method
    def host_form(self, theta: Theta) -> VoxelsSeen:
        mount, point = np.asarray(self.base_from_sensor), np.asarray(self.point)
        information = self.sqrt_info * np.exp(-np.asarray(theta.voxel_noise))
        extrinsic = poses.exp(np.asarray(theta.extrinsic))
        if len(mount) and (mount == mount[0]).all():  # one sensor: one matrix for all rows
            sensor = poses.compose(mount[0], extrinsic)
            back = poses.matrix(sensor)[:3, :3].T
            return VoxelsSeen(point @ back + sensor[:3], (information.reshape(-1, 3) @ back).reshape(-1, 3, 3))
        sensors = poses.compose(mount, extrinsic)
        rotation = poses.matrix(sensors)[:, :3, :3]
        return VoxelsSeen(poses.transform(sensors, point), information @ rotation.swapaxes(1, 2))
