"""The pipeline, or the tutorial, where it may take its time: in a process of its own, or in this one.

Why a process: JAX's tracing and Numba's compilation hold the interpreter's lock for tens of milliseconds, and
nothing in the node may wait for that.  The node's end (`backend`, `process`, `in_process`, `standby`) imports no JAX,
the other end (`serving`, `session`) no ROS; both speak in `messages` through a `channel`.
"""
