"""`explain` on recordings of any length: planned, explained and stored block by block, and put together from the blocks."""
