"""Give every room what it stands on: checks, names, files, digests and networks.

Imports nothing else of the package but its errors.
"""
