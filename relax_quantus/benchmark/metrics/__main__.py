"""``python -m relax_quantus.benchmark.metrics docs/metrics.md`` brings the page's tables up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from relax_quantus.benchmark.metrics.describing import update

if __name__ == "__main__":
    update(Path(sys.argv[1]))
