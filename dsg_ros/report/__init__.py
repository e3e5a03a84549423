"""What a run leaves behind: trajectories, map, learned parameters, figures and a report to read."""
