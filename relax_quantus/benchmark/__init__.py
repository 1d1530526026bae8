"""Score masking strategies and other methods, to tell which of them one should believe.

The flow, one module a step::

    synthetic_calls -> degradations -> soundscapes --datasets--> clips with stems and truth
                                                   (or recordings: a folder of real ones)
    clips --methods--> maps --metrics--> scores --runner--> tidy rows --report--> what one reads

    config --grid--> units of work --workers (resources, cells)--> finished cells
                     finished cells --store--> what a run that stopped goes on from

`run` takes a `BenchmarkConfig` and returns `Results`. Everything is imported when it is first used.
"""

import importlib.util
from typing import Any

from relax_quantus.base.extras import require

_HOME = {
    "BenchmarkConfig": "config",
    "PRESETS": "config",
    "FILES": "report.output",
    "Forecast": "engine.dry_run",
    "LOST": "engine.store",
    "Results": "engine.results",
    "forecast": "engine.dry_run",
    "run": "engine.runner",
    "METHODS": "methods.registry",
    "METRICS": "metrics",
    "show": "report.tables",
    "write": "report.output",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        require("bench", f"benchmark.{name}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
