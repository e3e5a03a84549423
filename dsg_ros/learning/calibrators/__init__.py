"""Calibration of a recorded drive, in one batch: motion models, robust estimation, and what may be believed of it."""
