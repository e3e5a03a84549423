"""Online hybrid SLAM that learns its own calibration: SE(3) poses and voxels in one differentiable factor graph."""

import os

# Before the first import of NumPy and of SciPy, whose OpenBLAS each read it once.  Its threads wait for each other by
# spinning: beside JAX's, and what else a run does at the same time, on two cores, products of a few thousand numbers
# took three times as long with them, and factorisations called from XLA's threads fifteen times.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
