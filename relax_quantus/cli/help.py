"""How ``--help`` reads: options under headings, plain defaults, examples last and as they are typed."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from relax_quantus.cli.requests.shared import MESSAGES


class PlainEpilog:
    """What comes last in the help of a command or of a group of commands, line by line as it was written."""

    epilog: str | None

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write it."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog.strip() + "\n")


class GroupedCommand(PlainEpilog, TyperCommand):
    """A command whose help lists its options under headings, in the order in which these first come, messages last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else "Options"
                usual = MESSAGES if parameter.name == "help" else own
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(plain(*record))
        groups[MESSAGES] = groups.pop(MESSAGES, [])
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the command's name in the first line."""
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]


def plain(name: str, text: str) -> tuple[str, str]:
    """An option's name and help without an argument's type and the brackets around a default in words.

    Examples
    --------
    >>> plain("CLIP <path>", "Like this one?  [default: (itself)]")
    ('CLIP', 'Like this one?  [default: itself]')
    """
    return re.sub(r" <\w+>$", "", name), re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text)
