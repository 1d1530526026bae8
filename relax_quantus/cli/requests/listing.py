"""What `list` can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from relax_quantus.cli.requests.names import completing
from relax_quantus.cli.requests.shared import MessageOptions


@dataclass(frozen=True)
class ListRequest:
    """List the names that options take, with one line about each.

    With --quiet the names alone, and of metrics only those that are used.

    \b
    Examples:
      relax-quantus list masks
      relax-quantus list metrics --json
    """

    what: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            autocompletion=completing("kinds"),
            show_default=False,
            help="encoders, masks, fills, similarities, estimators, methods or metrics.",
        ),
    ]
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Print them; see `relax_quantus.cli.listing`."""
        from relax_quantus.cli import listing

        return listing.run(self)
