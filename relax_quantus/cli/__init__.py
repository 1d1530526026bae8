"""The command line, one file a command: `explain`, `fit`, `bench`, `report`, `list_names` ...

Last step of the flow: options enter, a call of the package is made, lines of text and an exit code
leave. Nothing heavy is imported before a command runs.
"""
