"""What each command can be asked: one frozen dataclass a command, in a file of its own, whose fields are the command's options.

A field says everything about its option once: name, type, default and, in its annotation, what ``--help`` says. `declaring` makes a command
of such a class. Imported for every ``--help``, so nothing here imports anything heavy; what the command does is `run` of the module of
`relax_quantus.cli` that is called like it, imported when it runs.
"""
