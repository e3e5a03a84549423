"""What every factor type shares: declared fields, whitening, robust kernels, weights and linearisation, each done once.

A factor type is a class that names the variables it touches (`pose_key`, `voxel_key` fields), its data (`data` fields),
its `error` and its `sqrt_information`.  An instance is one row; the same class with a leading axis on every field is
a stack of rows.  Functions here treat one row and are vmapped over stacks by `dsg_ros.core.problem`.

The cost of a row is ``0.5 weight rho(|W e|^2)``.  Its linearisation scales the whitened residual and Jacobian by
``sqrt(weight rho')`` (iteratively reweighted least squares): then J^T r is the exact gradient of that cost, and J^T J
its Gauss-Newton Hessian without the kernel's negative curvature.  Derivatives in theta are taken of the cost itself.

`dsg_ros.core.native` has whitening, linearisation (`rows`) and kernels (`robust`) a second time, compiled, for types
with a `Factor.host_form`; a test holds that copy to these functions, for every type and kernel.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsg_ros.core import geometry
from dsg_ros.core.methods import host_method
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import Kind

Values = tuple[Array, ...]
"""One value per key field, in their order: a pose (7,) or a voxel (3,)."""


class Kernel(enum.IntEnum):
    """Robust kernels rho(s) of the squared whitened residual s (Barron 2019; Zhang 1997), all with rho'(0) = 1."""

    NONE = 0
    HUBER = 1
    CAUCHY = 2
    GEMAN_MCCLURE = 3
    DCS = 4
    """Dynamic covariance scaling (Agarwal et al., ICRA 2013) as a kernel; ``width^2`` is its phi."""


def robust(kernel: Int[Array, ""], width: Float[Array, ""], s: Float[Array, ""]) -> Float[Array, ""]:
    """rho(s); ``width`` is the kernel's scale in standard deviations."""
    c2 = width**2
    # Huber's square root must not see 0, even where it is not taken: its gradient there is infinite.
    beyond = s > c2
    root = jnp.sqrt(jnp.where(beyond, s, 1.0))
    huber = jnp.where(beyond, 2 * width * root - c2, s)
    dcs = jnp.where(beyond, c2 * (3 * s - c2) / (c2 + s), s)
    return _choose(kernel, s, huber, c2 * jnp.log1p(s / c2), s * c2 / (c2 + s), dcs)


def robust_weight(kernel: Int[Array, ""], width: Float[Array, ""], s: Float[Array, ""]) -> Float[Array, ""]:
    """rho'(s), in (0, 1]."""
    c2 = width**2
    huber = jnp.where(s > c2, width / jnp.sqrt(jnp.where(s > c2, s, 1.0)), 1.0)
    dcs = jnp.where(s > c2, (2 * c2 / (c2 + s)) ** 2, 1.0)
    return _choose(kernel, jnp.ones_like(s), huber, c2 / (c2 + s), (c2 / (c2 + s)) ** 2, dcs)


def _choose(kernel: Int[Array, ""], *cases: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.select([kernel == i for i in range(1, len(cases))], cases[1:], cases[0])


def pose_key() -> Any:
    """Declares a field that names a pose."""
    return eqx.field(default=0, metadata={"kind": Kind.POSE})


def voxel_key() -> Any:
    """Declares a field that names a voxel; a type has at most one (the Schur complement relies on it)."""
    return eqx.field(default=0, metadata={"kind": Kind.VOXEL})


def data(default: Any) -> Any:
    """Declares a data field with the neutral value that padding rows carry; its shape and type are the field's."""
    array = np.asarray(default, np.int32 if np.asarray(default).dtype.kind in "iu" else np.float64)
    array.setflags(write=False)
    return eqx.field(default_factory=lambda: array, metadata={"data": array})


class RelativePoses(NamedTuple):
    """Rows ``log(measured^-1 first^-1 second)``: ``measured`` (n, 7), ``sqrt_info`` (n, 6, 6)."""

    measured: np.ndarray
    sqrt_info: np.ndarray


class PosesKnown(NamedTuple):
    """Rows ``log(mean^-1 pose)``: ``mean`` (n, 7), ``sqrt_info`` (n, 6, 6)."""

    mean: np.ndarray
    sqrt_info: np.ndarray


class VoxelsSeen(NamedTuple):
    """Rows ``pose^-1 voxel - point``: ``point`` (n, 3) in the base frame, ``sqrt_info`` (n, 3, 3)."""

    point: np.ndarray
    sqrt_info: np.ndarray


class VoxelsKnown(NamedTuple):
    """Rows ``voxel - point``: ``point`` (n, 3) in map, ``sqrt_info`` (n, 3, 3)."""

    point: np.ndarray
    sqrt_info: np.ndarray


HostForm = RelativePoses | PosesKnown | VoxelsSeen | VoxelsKnown
"""What a stack of rows comes down to once theta is given: forms that `dsg_ros.core.native.rows` linearises."""


class Linearised(NamedTuple):
    """One row at one state: its ``cost``, weighted residual (r,) and Jacobian (r, d) in its variables' tangents."""

    cost: Float[Array, ""]
    residual: Float[Array, " r"]
    jacobian: Float[Array, "r d"]


class Factor(eqx.Module):
    """Base of all factor types.  The default instance has weight 0: it is valid, and adds nothing (padding)."""

    weight: Float[Array, ""] = data(0.0)
    kernel: Int[Array, ""] = data(int(Kernel.NONE))
    kernel_width: Float[Array, ""] = data(1.0)

    @abc.abstractmethod
    def error(self, theta: Theta, *values: Array) -> Float[Array, " r"]:
        """The unwhitened error of one row at the values of its variables."""

    @abc.abstractmethod
    def sqrt_information(self, theta: Theta) -> Array:
        """``W`` of the whitened error ``W e``: (r, r), or (r,) where diagonal."""

    def jacobians(self, theta: Theta, *values: Array) -> tuple[Float[Array, " r"], tuple[Array, ...]]:
        """The error and its derivatives in each variable's tangent: by forward mode; closed forms override this."""

        def moved(tangents: tuple[Array, ...]) -> Array:
            return self.error(theta, *retract(self, values, tangents))

        zeros = zero_tangents(type(self))
        return self.error(theta, *values), jax.jacfwd(moved)(zeros)

    def along(self, theta: Theta, values: Values, tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        """The error and its derivative along ``tangents`` of the variables, each (r,)."""
        error, blocks = self.jacobians(theta, *values)
        return error, jnp.concatenate(blocks, axis=1) @ jnp.concatenate(tangents)

    @host_method
    def host_form(self, theta: Theta) -> HostForm | None:
        """A stack of rows (NumPy) at ``theta`` in one of the forms that compiled loops linearise, the same errors up to
        a rotation of the whitened ones.

        None where there is none: then JAX linearises these rows, in programs that are compiled at their first use, and
        windows (`dsg_ros.core.solvers.window`) do not take them.
        """
        return None

    @host_method
    def pull_back(self, theta: Theta, by_measured: np.ndarray, by_columns: np.ndarray) -> dict[str, np.ndarray] | None:
        """Gradient in leaves of theta, by name, of something summed over a stack of rows (NumPy) that are
        `RelativePoses` at ``theta``, given its gradients in their form: ``by_measured`` (n, 6) in ``measured`` moved by
        ``exp`` from the right, ``by_columns`` (n, 6) in the logarithms of scales of ``sqrt_info``'s columns.

        None where there is none: then JAX differentiates these rows.
        """
        return None

    @classmethod
    def stack(cls, rows: int, **fields: Any) -> Self:
        """``rows`` rows as NumPy arrays, fields not named at their neutral value; for padding and tests."""
        columns: dict[str, Any] = {f.name: np.zeros(rows, np.int32) for f in key_fields(cls)}
        columns |= {name: np.repeat(value[None], rows, axis=0) for name, value in data_fields(cls).items()}
        return cls.of(columns | fields)

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Self:
        """A stack of rows from all of its columns; Equinox's constructor takes ten times as long."""
        structure, names = _structure(cls)
        made: Self = jax.tree.unflatten(structure, [columns[name] for name in names])
        return made


@cache
def _structure(cls: type[Factor]) -> tuple[Any, tuple[str, ...]]:
    return jax.tree.structure(cls()), tuple(f.name for f in dataclasses.fields(cls))


@cache
def key_fields(cls: type[Factor]) -> tuple[dataclasses.Field[Any], ...]:
    """The fields that name variables, in order."""
    return tuple(f for f in dataclasses.fields(cls) if "kind" in f.metadata)


@cache
def kinds(cls: type[Factor]) -> tuple[Kind, ...]:
    """The kind of each variable a row touches, in order."""
    return tuple(f.metadata["kind"] for f in key_fields(cls))


@cache
def data_fields(cls: type[Factor]) -> dict[str, np.ndarray]:
    """The data fields and their neutral values."""
    return {f.name: f.metadata["data"] for f in dataclasses.fields(cls) if "data" in f.metadata}


def zero_tangents(cls: type[Factor]) -> tuple[Array, ...]:
    """A zero tangent for each variable of a row."""
    return tuple(jnp.zeros(kind.dof) for kind in kinds(cls))


def retract(factor: Factor, values: Values, tangents: tuple[Array, ...]) -> Values:
    """The row's values moved by tangents."""
    return tuple(
        geometry.retract(value, tangent) if kind is Kind.POSE else value + tangent
        for kind, value, tangent in zip(kinds(type(factor)), values, tangents, strict=True)
    )


def whiten(sqrt_information: Array, array: Array) -> Array:
    """``W array`` for an error (r,) or a Jacobian (r, d)."""
    if sqrt_information.ndim == 2:
        return sqrt_information @ array
    return sqrt_information * array if array.ndim == 1 else sqrt_information[:, None] * array


def row_residual(factor: Factor, theta: Theta, values: Values) -> Float[Array, " r"]:
    """Whitened and weighted residual without its robust kernel: ``sqrt(weight) W e``."""
    return jnp.sqrt(factor.weight) * whiten(factor.sqrt_information(theta), factor.error(theta, *values))


def row_cost(factor: Factor, theta: Theta, values: Values) -> Float[Array, ""]:
    """``0.5 weight rho(|W e|^2)``."""
    whitened = whiten(factor.sqrt_information(theta), factor.error(theta, *values))
    return 0.5 * factor.weight * robust(factor.kernel, factor.kernel_width, jnp.sum(whitened**2))


def row_linearise(factor: Factor, theta: Theta, values: Values) -> Linearised:
    """The row's cost, and its residual and Jacobian scaled as the module says."""
    whitened, jacobian = _whitened(factor, theta, values)
    squared = jnp.sum(whitened**2)
    cost = 0.5 * factor.weight * robust(factor.kernel, factor.kernel_width, squared)
    scale = jnp.sqrt(factor.weight * robust_weight(factor.kernel, factor.kernel_width, squared))
    return Linearised(cost, scale * whitened, scale * jacobian)


def _whitened(factor: Factor, theta: Theta, values: Values) -> tuple[Float[Array, " r"], Float[Array, "r d"]]:
    error, blocks = factor.jacobians(theta, *values)
    information = factor.sqrt_information(theta)
    return whiten(information, error), whiten(information, jnp.concatenate(blocks, axis=1))


def row_gradient(factor: Factor, theta: Theta, values: Values) -> Float[Array, " d"]:
    """Gradient of `row_cost` in the tangents of the row's variables, concatenated: J^T r of `row_linearise`.

    Without that function's square root of the weight, whose derivative is infinite for padding.
    """
    whitened, jacobian = _whitened(factor, theta, values)
    weight = factor.weight * robust_weight(factor.kernel, factor.kernel_width, jnp.sum(whitened**2))
    return weight * (whitened @ jacobian)


def row_hessian_product(factor: Factor, theta: Theta, values: Values, vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """Derivative of `row_gradient` when the row's variables move along ``vector``.

    The gradient is taken in the tangent at the moved variables, so a single row's product differs from its Hessian's by
    half a Lie bracket with the gradient.  These terms are linear in the gradient and cancel in the sum where it
    vanishes: at a solution, which is where this is for.
    """
    cls = type(factor)
    borders = np.cumsum([kind.dof for kind in kinds(cls)])[:-1]

    def moved(tangents: tuple[Array, ...]) -> Array:
        return row_gradient(factor, theta, retract(factor, values, tangents))

    return jax.jvp(moved, (zero_tangents(cls),), (tuple(jnp.split(vector, borders)),))[1]


def row_theta_product(factor: Factor, theta: Theta, values: Values, vector: Float[Array, " d"]) -> Float[Array, ""]:
    """``vector . gradient``: its gradient in theta is what the implicit function theorem asks for.

    Only the error's derivative along the vector is whitened: half the work of `row_gradient`.
    """
    borders = np.cumsum([kind.dof for kind in kinds(type(factor))])[:-1]
    error, change = factor.along(theta, values, tuple(jnp.split(vector, borders)))
    information = factor.sqrt_information(theta)
    whitened = whiten(information, error)
    weight = factor.weight * robust_weight(factor.kernel, factor.kernel_width, jnp.sum(whitened**2))
    return weight * (whitened @ whiten(information, change))


def row_theta_jacobian(factor: Factor, theta: Theta, values: Values, ways: Theta) -> Float[Array, "K d"]:
    """Derivative of `row_gradient` along each of K directions in theta (leaves of ``ways`` have a leading axis K)."""

    def along(way: Theta) -> Array:
        return jax.jvp(lambda t: row_gradient(factor, t, values), (theta,), (way,))[1]

    return jax.vmap(along)(ways)
