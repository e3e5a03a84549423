"""Online hybrid SLAM that learns its own calibration: SE(3) poses and voxels in one differentiable factor graph."""

__version__ = "0.1.0"
