"""The factor graph in JAX and NumPy: variables, theta, factors, solvers and their derivatives.  No ROS, no files.

Importing this package switches JAX to float64 (the global graph needs it: a kilometre of millimetre-accurate increments
does not fit in seven digits) and points it at the compilation cache on disk.
"""

import logging
import os

# Before the first import of SciPy, whose OpenBLAS reads it once: JAX's factorisations call it from XLA's threads, which
# its own hinder; with both, `SchurVoxels` took 270 ms instead of 18 ms for 32 poses and 2048 voxels on two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax

from dsg_ros.core.compilation import enable_cache

jax.config.update("jax_enable_x64", True)
enable_cache()
# It reports at INFO that there is no TPU.
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
