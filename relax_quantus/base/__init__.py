"""Give every room what it stands on: checks, names, files, digests and networks.

Lowest room but for the errors; imports no other.
"""
