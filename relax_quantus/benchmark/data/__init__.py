"""Make what the benchmark explains: clips with their truth, of several kinds of data.

The kinds are synthetic scenes, recordings, planted calls and annotated boxes.
"""
