"""A whole recording, short or long.

Which files are recordings, and one map over a recording's own time axis.

`folders` lists recordings for all commands; `stitching` makes one map of examples that overlap.
"""
