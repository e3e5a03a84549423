"""The factor graph in JAX and NumPy: variables, theta, factors, solvers and their derivatives.  No ROS, no files.

Importing this package switches JAX to float64 (the global graph needs it: a kilometre of millimetre-accurate increments
does not fit in seven digits) and points it at the compilation cache on disk.
"""

import logging

import jax

from dsg_ros.core.compilation import enable_cache

jax.config.update("jax_enable_x64", True)
enable_cache()
# It reports at INFO that there is no TPU.
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
