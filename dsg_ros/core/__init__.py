"""The factor graph in JAX and NumPy: variables, theta, factors, solvers and their derivatives.  No ROS, no files.

Importing this package switches JAX to float64 (the global graph needs it: a kilometre of millimetre-accurate increments
does not fit in seven digits) and points it at the compilation cache on disk.
"""

import logging
import os

# Before the first import of SciPy, whose OpenBLAS reads it once: its threads and XLA's spin against each other, and with
# both the Cholesky factor of a 192 x 192 window took 250 ms instead of 1 ms on two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax  # noqa: E402

from dsg_ros.core.compilation import enable_cache  # noqa: E402

jax.config.update("jax_enable_x64", True)
enable_cache()
# It reports at INFO that there is no TPU.
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
