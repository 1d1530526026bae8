"""Compare maskings as docs/protocol.md describes, from recordings to published tables.

One command does all of it.
"""
