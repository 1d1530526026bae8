"""What every room stands on: checks, registry, specifications, text and files, digests, torch's own settings.

Lowest room but for the errors; imports no other.
"""
