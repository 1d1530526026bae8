"""Print as JSON the peak memory of this process: a fresh one of the section "memory".

``python -m benchmarks.speed.memory_probe ENCODER MASKS ESTIMATOR N THREADS``

The peak is the kernel's high-water mark of this process (Linux: VmHWM, which begins anew with the
program; elsewhere ru_maxrss). A small call first, so that what libraries allocate once is there in
either size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import relax_quantus as rq
from benchmarks.speed.explainers import explainer

CHEAP = "pooling"
STATUS = Path("/proc/self/status")
WARM_UP_MASKS = 200


def pooling() -> nn.Module:
    """Pool to 8 x 8 by averages, nothing else: all memory but a little is RELAX's own."""
    return nn.Sequential(nn.AvgPool2d((12, 8)), nn.Flatten(), nn.Softplus()).eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    CHEAP: pooling,
    "vggish_mini": lambda: rq.load_encoder("vggish_mini"),
}


def peak_bytes() -> tuple[int, str]:
    """Return the high-water mark of this process's resident memory, and what says so."""
    if STATUS.is_file():
        line = next((line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")), None)
        if line is not None:
            return int(line.split()[1]) * 1024, "VmHWM"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "ru_maxrss"


def main(encoder: str, masks: str, estimator: str, n_samples: int, threads: int) -> None:
    """Explain one clip and print the peak."""
    torch.set_num_threads(threads)
    relax = explainer(NETWORKS[encoder](), masks, estimator)
    x = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    relax.attribute(x, n_samples=min(n_samples, WARM_UP_MASKS))
    before, _ = peak_bytes()
    relax.attribute(x, n_samples=n_samples)
    peak, source = peak_bytes()
    print(json.dumps({"before": before, "peak": peak, "measured_by": source}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
