"""A robot driven through a building that does not exist: exact truth for clouds, wheels and poses.  No ROS."""
