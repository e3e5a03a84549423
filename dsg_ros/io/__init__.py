"""Logs in, bags out: readers and writers of files and of raw sensor messages.  Neither ROS nor JAX is imported here."""
