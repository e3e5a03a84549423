"""Everything that speaks ROS, and the only package that imports it."""
