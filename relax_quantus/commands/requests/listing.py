"""What `list` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class ListRequest:
    """List the names that options take, with one line about each.

    \b
    Examples:
      relax-quantus list masks
    """

    what: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            show_default=False,
            help="encoders, masks, fills, similarities, estimators, methods or metrics.",
        ),
    ]

    def run(self) -> int:
        """Print them; see `relax_quantus.commands.listing`."""
        from relax_quantus.commands import listing

        return listing.run(self)
