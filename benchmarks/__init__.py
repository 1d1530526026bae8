"""Experiments and trainings that produce what the package ships or publishes; not part of the wheel."""
