"""Run the command line, for ``python -m relax_quantus`` and the command ``relax-quantus``."""

from __future__ import annotations

import sys

from relax_quantus.base.extras import require
from relax_quantus.errors import MissingDependencyError

IMPOSSIBLE = 2
"""Exit code of a command line that cannot work."""


def main() -> None:
    """Run the command line; without the extra ``cli``, say so in one line and exit with 2."""
    try:
        require("cli", "relax-quantus")
    except MissingDependencyError as problem:
        if sys.stderr is not None:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(IMPOSSIBLE)
    from relax_quantus.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
