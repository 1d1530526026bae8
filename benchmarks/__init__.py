"""Produce what the package ships or publishes, by experiments and trainings.

None of it is part of the wheel.
"""
