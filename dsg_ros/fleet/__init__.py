"""Logs of one robot, or of many alike, held by workers that answer what their logs say of a theta."""
