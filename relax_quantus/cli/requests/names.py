"""Names that a shell completes; they are in `relax_quantus.cli.options`."""

from relax_quantus.cli.options import completing as completing
