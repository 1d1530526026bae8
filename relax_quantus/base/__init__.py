"""Give every room what it stands on: checks, names, files, digests, networks and their torch settings.

Lowest room but for the errors; imports no other.
"""
