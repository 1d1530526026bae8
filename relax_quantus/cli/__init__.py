"""What each command of ``relax-quantus`` does, one file a command, and in `requests` the options of each.

Last step of the flow: parsed options enter, files and lines of text leave. Nothing here is imported for ``--help`` but `console` and `requests`.
"""
