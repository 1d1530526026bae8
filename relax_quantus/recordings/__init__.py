"""Recordings, short or long, explained over their own time axis: what `explain` does, as a library.

    plan -> session -> explaining (stitching) -> blocks -> recording -> writing, pages

`plan` has the settings, plain values, and says what they mean for one recording; `session` holds
everything that they name, loaded once. A recording is explained block by block (`explaining`) into
maps that `stitching` makes of examples and that are kept in memory or on disk (`blocks`).
`recording` is what comes of it and can be written: as picture and arrays (`writing`) and as a page
(`pages`). `anchors` are what recordings are compared with, and `folders` lists them for all
commands.
"""
