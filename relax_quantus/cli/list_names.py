"""``relax-quantus list``: the names in a registry, with one line about each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Annotated

import typer

from relax_quantus.base.registry import nearest
from relax_quantus.cli import console
from relax_quantus.cli.options import MessageOptions, completing
from relax_quantus.errors import UnknownNameError

HOMES = {
    "encoders": ("relax_quantus.encoders", "ENCODERS"),
    "masks": ("relax_quantus.relax.masks", "STRATEGIES"),
    "fills": ("relax_quantus.relax.fills", "FILLS"),
    "similarities": ("relax_quantus.relax.similarity", "SIMILARITIES"),
    "estimators": ("relax_quantus.relax.estimators", "ESTIMATORS"),
    "methods": ("relax_quantus.benchmark.methods.registry", "METHODS"),
    "metrics": ("relax_quantus.benchmark.metrics", "METRICS"),
}
"""Kind of names that can be listed, and the module and attribute of its registry."""


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
        """Print name and summary of each entry of one kind.

        Metrics of Quantus that are not used are listed too, with the reason.

        Raises
        ------
        UnknownNameError
            If there is no such kind; the message lists the nearest.
        """
        kind = self.what
        if kind not in HOMES:
            raise UnknownNameError(f"KIND: expected what to list, got {kind!r}; {nearest(kind, list(HOMES))}.")
        module, name = HOMES[kind]
        registry = getattr(importlib.import_module(module), name)
        lines, unused = {entry: registry.summary(entry) for entry in registry}, set()
        if kind == "metrics":
            from relax_quantus.benchmark.metrics.excluded import EXCLUDED

            lines |= {entry.name: f"not used, {entry.category} in Quantus: {entry.reason}" for entry in EXCLUDED}
            unused = {entry.name for entry in EXCLUDED}
        if self.messages.quiet and not self.messages.json:
            console.manner.set(console.FOR_PEOPLE)
            lines = {entry: "" for entry in lines if entry not in unused}
        width = max(map(len, lines), default=0)
        for entry, summary in lines.items():
            facts = {"kind": kind, "name": entry, "summary": summary, "used": entry not in unused}
            console.result(f"{entry:<{width}}  {summary}".rstrip(), "name", **facts)
        return 0
