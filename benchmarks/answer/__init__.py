"""The comparison of maskings that docs/protocol.md describes, from the recordings to the published tables with one command."""
