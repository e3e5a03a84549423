"""Solvers: one method a file, beside the parts that several share.  Those named here have ``solve(problem, theta) ->
Solution``; `incremental` is for graphs that grow, `window` and `fixed_lag` for the newest poses.
"""

from dsg_ros.core.solvers.conjugate_gradient import ConjugateGradient
from dsg_ros.core.solvers.gradient_descent import GradientDescent
from dsg_ros.core.solvers.levenberg_marquardt import LevenbergMarquardt
from dsg_ros.core.solvers.linear import DenseCholesky, SchurVoxels
from dsg_ros.core.solvers.sparse import SparseCholesky

__all__ = [
    "ConjugateGradient",
    "DenseCholesky",
    "GradientDescent",
    "LevenbergMarquardt",
    "SchurVoxels",
    "SparseCholesky",
]
