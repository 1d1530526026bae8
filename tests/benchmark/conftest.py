"""A tiny distribution that adds what the engine's tests run on: a
data set, an encoder, and metrics that are slow, fail or never end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import uninterrupted

from relax_quantus.benchmark import Results
from relax_quantus.benchmark.data.datasets import DATASETS
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.encoders import ENCODERS

MODULE = '''
import os, signal, time
from pathlib import Path
import numpy as np, torch
from relax_quantus.benchmark.data.datasets import Clip, Dataset, LabelledExamples
from relax_quantus.benchmark.metrics import Metric, Scores


def tiny(max_clips=3, seed=0, head_clips=12):
    """Noise with a bump; no audio is decoded."""
    def x(n, stream):
        generator = torch.Generator().manual_seed(1000 * seed + stream)
        y = torch.arange(n) % 3
        values = torch.randn(n, 1, 96, 64, generator=generator) - 2
        for i, label in enumerate(y.tolist()):
            values[i, :, 30:60, 20 * label : 20 * label + 16] += 4
        return values, y
    def examples(n, stream):
        values, y = x(n, stream)
        names = tuple(f"{stream}_{i}" for i in range(n))
        return LabelledExamples(values, y.numpy(), names, names)
    values, y = x(max_clips, 1)
    truth = np.zeros((96, 64), bool); truth[30:60] = True
    clips = tuple(Clip(f"clip{i}", v, int(k), "abc"[k], f"source{i}", v, truth) for i, (v, k) in enumerate(zip(values, y)))
    return Dataset("tiny", ("a", "b", "c"), clips, examples(head_clips, 2), examples(6, 3))


def net():
    """A few weights."""
    generator = torch.Generator().manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(96, 12)).eval()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return layers


def metric(name, measure):
    return Metric(name=name, category="complexity", direction="up", measure=measure)


def _slow(given):
    folder = os.environ.get("ENGINE_TEST_MARKS")
    if folder:
        number = len(list(Path(folder).iterdir()))
        (Path(folder) / f"{number:03d}_{os.getpid()}").touch()
    time.sleep(0.1)
    values = np.random.rand(3)  # from the global generator, which nothing has seeded: not part of the score
    return Scores(float(given.map("centred").max()), {"part": 1.0}, {"MIF": (np.array([0.0, 1.0]), np.array([1.0, 0.5]))})


def _failing(given):
    raise ZeroDivisionError("planted\\nfailure")


def _hungry(given):
    torch.empty(1 << 60, dtype=torch.uint8)


def _endless(given):
    time.sleep(600)


def _deadly(given):
    if given.question.clip == DOOMED and given.method.name == "energy":
        os.kill(os.getpid(), signal.SIGKILL)
    return float(torch.get_num_threads())


import zlib
DOOMED = zlib.crc32(b"clip1")
Slow, Failing, Hungry = metric("Slow", _slow), metric("Failing", _failing), metric("Hungry", _hungry)
Endless, Deadly = metric("Endless", _endless), metric("Deadly", _deadly)
'''
METRIC_NAMES = ("Slow", "Failing", "Hungry", "Endless", "Deadly")
POINTS = "\n".join(
    ["[relax_quantus.datasets]", "tiny = engine_test_plugin:tiny"]
    + ["[relax_quantus.encoders]", "net = engine_test_plugin:net", "[relax_quantus.metrics]"]
    + [f"{name} = engine_test_plugin:{name}" for name in METRIC_NAMES]
)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install it for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "engine_test_plugin.py").write_text(MODULE)
    info = folder / "engine_test_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engine-test-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    registries = (DATASETS, ENCODERS, METRICS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        for registry in registries:
            patch.setattr(registry, "_looked", False)
        yield folder
    for registry, names in zip(registries, (("tiny",), ("net",), METRIC_NAMES), strict=True):
        for name in names:
            registry._factories.pop(name, None)
    sys.modules.pop("engine_test_plugin", None)


@pytest.fixture
def serial(plugin: Path) -> Results:
    """An uninterrupted run in this process, the same for all that ask."""
    return uninterrupted()
