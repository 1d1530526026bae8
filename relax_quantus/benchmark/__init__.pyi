"""Tell type checkers and editors the names of `relax_quantus.benchmark`.

At run time each name is imported when it is first used.
"""

from relax_quantus.benchmark.config import PRESETS as PRESETS
from relax_quantus.benchmark.config import BenchmarkConfig as BenchmarkConfig
from relax_quantus.benchmark.engine.dry_run import Forecast as Forecast
from relax_quantus.benchmark.engine.dry_run import forecast as forecast
from relax_quantus.benchmark.engine.results import Results as Results
from relax_quantus.benchmark.engine.runner import run as run
from relax_quantus.benchmark.engine.store import LOST as LOST
from relax_quantus.benchmark.methods.registry import METHODS as METHODS
from relax_quantus.benchmark.metrics import METRICS as METRICS
from relax_quantus.benchmark.report.output import FILES as FILES
from relax_quantus.benchmark.report.output import write as write
from relax_quantus.benchmark.report.tables import show as show

__all__ = [
    "FILES",
    "Forecast",
    "LOST",
    "METHODS",
    "METRICS",
    "PRESETS",
    "BenchmarkConfig",
    "Results",
    "forecast",
    "run",
    "show",
    "write",
]
