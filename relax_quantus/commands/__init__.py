"""What each command of ``relax-quantus`` does, one file a command; `relax_quantus.cli` declares their options.

Last step of the flow: parsed options enter, files and lines of text leave. Nothing here is imported for ``--help`` but `console`.
"""
