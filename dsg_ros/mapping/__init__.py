"""From scans to poses and voxels: thinning, deskewing, local maps, registration, association and loop closure."""
