"""``relax-quantus inspect``: what a file of a network takes, gives and holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.cli import console
from relax_quantus.cli.options import MessageOptions


@dataclass(frozen=True)
class InspectRequest:
    """Describe a network in a file: its inputs, outputs, and what could be an embedding.

    The last line is the option with which `explain` and `fit` load it. ONNX files need
    relax-quantus[onnx], TFLite files relax-quantus[litert].

    \b
    Examples:
      relax-quantus inspect model.onnx
      relax-quantus inspect model.tflite --json
    """

    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="An ONNX (.onnx), TFLite (.tflite), TorchScript (.pt, .ts) or torch.export (.pt2) file.",
        ),
    ]
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Print what the file holds, which is read as data and not run.

        Raises
        ------
        RelaxQuantusError
            If the file is missing, damaged or of a kind that is not known, or the runtime that
            reads it is not installed.
        """
        from relax_quantus.encoders.adapters.inspection import inspect

        found = inspect(self.file)
        if self.messages.json:
            console.result("", "network", **asdict(found))
            return 0
        for line in str(found).splitlines():
            console.result(line)
        return 0
