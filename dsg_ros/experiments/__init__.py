"""Experiments that run on the core alone."""
