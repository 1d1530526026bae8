"""What discards a stored cell: its own code, and no
other; on a copy of the package whose files are changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import relax_quantus
from relax_quantus.base import source
from relax_quantus.base.source import PACKAGE, Sources
from relax_quantus.benchmark import METRICS, BenchmarkConfig
from relax_quantus.benchmark.engine.grid import code_of
from relax_quantus.benchmark.engine.versions import Versions
from relax_quantus.benchmark.methods import build
from relax_quantus.encoders import load_encoder

CONFIG = BenchmarkConfig(
    methods=("RELAX-time", "RELAX-random", "RELAX-random:estimator=surrogate", "Saliency", "Occlusion", "energy"),
    metrics=(
        "SRG-bin-mean",
        "PixelFlipping",
        "IROF",
        "AUC",
        "LocalLipschitz",
        "Complexity",
        "EffectiveComplexity",
        "MPRT",
    ),
)
RELAX = frozenset(f"method {name}" for name in CONFIG.methods if name.startswith("RELAX"))
EFFECT = "\nassert True\n"
"""A statement that counts for everything in its module."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources, to be changed."""
    original = Path(relax_quantus.__file__).parent
    shutil.copytree(original, tmp_path / PACKAGE, ignore=lambda _, files: [f for f in files if f.endswith(".pyc")])
    return tmp_path / PACKAGE


def digests(folder: Path | None = None) -> dict[str, str]:
    """What `lay_out` puts into keys, by the code in a folder."""
    sources = Sources(None if folder is None else {PACKAGE: folder.parent})
    chosen = build(CONFIG.methods), [METRICS.get(name) for name in CONFIG.metrics]
    return code_of(CONFIG, load_encoder("vggish_mini"), *chosen, Versions(sources))


@cache
def original() -> dict[str, str]:
    """What the package itself gives, which a copy gives, too."""
    return digests()


def changed(folder: Path, before: dict[str, str]) -> set[str]:
    return {name for name, digest in digests(folder).items() if digest != before[name]}


def append(text: str) -> Callable[[str], str]:
    return lambda code: code + text


def commented(code: str) -> str:
    """Comments, a docstring and blank lines where there
    were none, and other docstrings where there were.
    """
    code = "# a comment\n\n" + re.sub(r'^( *)"""(?=\w)', r'\1"""Said otherwise: ', code, flags=re.M)
    return re.sub(r"^(( {4})+)(return |if )", r"\n\1# why\n\1\3", code, flags=re.M)


def test_a_copy_has_the_versions_of_the_original(copy: Path) -> None:
    assert digests(copy) == original()


def test_comments_docstrings_and_lines_discard_nothing_anywhere(copy: Path) -> None:
    before = original()
    for path in copy.rglob("*.py"):
        code = path.read_text()
        path.write_text(commented(code))
        assert path.read_text() != code or not code
    assert changed(copy, before) == set()


def test_what_draws_prints_and_parses_discards_nothing(copy: Path) -> None:
    before, touched = original(), 0
    for room in ("views", "cli", "recordings", "benchmark/report", "benchmark/statistics"):
        for path in (copy / room).rglob("*.py"):
            path.write_text(path.read_text() + EFFECT)
            touched += 1
    for path in ("benchmark/engine/runner.py", "benchmark/engine/store.py", "benchmark/engine/workers.py"):
        (copy / path).write_text((copy / path).read_text() + EFFECT)
    assert touched > 50
    assert changed(copy, before) == set()


@pytest.mark.parametrize(
    ("file", "change", "wanted"),
    [
        ("relax/estimators/kernel_ridge.py", append(EFFECT), RELAX),
        ("relax/estimators/surrogate.py", append(EFFECT), RELAX),
        ("relax/attribution.py", append(EFFECT), RELAX),
        ("relax/masked_forward.py", append(EFFECT), RELAX),
        ("benchmark/methods/relax.py", lambda code: code.replace("2_654_435_761", "5"), RELAX),
        ("benchmark/methods/captum.py", lambda code: code.replace("COPIES = 32", "COPIES = 33"), {"method Occlusion"}),
        ("benchmark/methods/captum.py", append(EFFECT), {"method Occlusion", "method Saliency"}),
        ("benchmark/metrics/complexity.py", append(EFFECT), {"metric Complexity", "metric EffectiveComplexity"}),
        ("benchmark/metrics/complexity.py", lambda code: code.replace("THRESHOLD = 0.1", "THRESHOLD = 0.2"), {"metric EffectiveComplexity"}),
        ("benchmark/metrics/localisation.py", append(EFFECT), {"metric AUC"}),
        ("benchmark/metrics/randomisation.py", append(EFFECT), {"metric MPRT"}),
        ("benchmark/metrics/robustness.py", append(EFFECT), {"metric LocalLipschitz"}),
        ("benchmark/metrics/faithfulness.py", append("\n\ndef another(given):\n    return 1.0\n"), set()),
        ("encoders/vggish_mini.py", append(EFFECT), {"encoder's code"}),
        ("encoders/vggish.py", append(EFFECT), set()),
        ("benchmark/data/region.py", append(EFFECT), {"shared code"}),
    ],
)  # fmt: skip
def test_a_change_discards_what_rests_on_it(
    copy: Path, file: str, change: Callable[[str], str], wanted: set[str]
) -> None:
    before, path = original(), copy / file
    code = path.read_text()
    path.write_text(change(code))
    assert path.read_text() != code
    assert changed(copy, before) == set(wanted)


def test_masks_of_another_name_keep_their_cells(copy: Path) -> None:
    before, path = original(), copy / "relax" / "masks" / "random.py"
    path.write_text(path.read_text() + EFFECT)
    found = changed(copy, before)
    assert "method RELAX-random" in found
    assert not {"method Saliency", "method energy", "metric AUC", "shared code"} & found


def test_every_function_that_a_score_was_seen_to_enter_is_in_its_closure() -> None:
    """Names are followed by reading alone: what runs must be among what was read.

    In a process of its own, as every call is looked at and other tests leave threads behind.
    """
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["RELAX-time", "RELAX-random:estimator=surrogate", "Saliency", "KernelShap", "energy"]


def look_at_every_call() -> None:
    """Explain by five methods; compare the modules that were entered with those that were read."""
    from relax_quantus.benchmark.engine.prepared import prepare

    config = BenchmarkConfig(n_samples=30, max_clips=2, head_clips=24, perturbations_per_eval=8)
    prepared = prepare(config, "vggish_mini", "synthetic", perturbations_per_eval=8)
    question, sources = prepared.ask("own", prepared.dataset.clips[0]), Versions().sources
    for spec in ("RELAX-time", "RELAX-random:estimator=surrogate", "Saliency", "KernelShap", "energy"):
        method = build((spec,))[0]
        entered = set[str]()

        def see(frame, event, _, entered=entered):  # type: ignore[no-untyped-def]
            if event == "call" and frame.f_code.co_filename.startswith(str(Path(relax_quantus.__file__).parent)):
                entered.add(frame.f_globals["__name__"])

        sys.setprofile(see)
        try:
            method.explain(question, prepared.similarities)
        finally:
            sys.setprofile(None)
        met = Seen(sources).modules(Versions(sources), method, config) | Seen(sources).encoder(question.model)
        assert {name for name in entered if not name.startswith(source.NOT_ENTERED)} <= met, spec
        print(spec)


class Seen(Sources):
    """Collects the modules of the closures that are asked for."""

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources.packages)
        self.met = set[str]()

    def closure_of(self, *given):  # type: ignore[no-untyped-def]
        found = super().closure_of(*given)
        self.met |= found.modules
        return found

    def modules(self, _: Versions, method, config: BenchmarkConfig) -> set[str]:  # type: ignore[no-untyped-def]
        Versions(self).of_method(method, config)
        Versions(self).shared()
        return self.met

    def encoder(self, model) -> set[str]:  # type: ignore[no-untyped-def]
        Versions(self).of_encoder(model)
        return self.met


def test_code_of_a_users_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine_to_measure.py"
    file.write_text("LEVEL = 1\n\n\ndef other(given):\n    return 0\n\n\ndef measure(given):\n    return LEVEL\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine_to_measure

    def version() -> str:
        return Sources().closure_of([mine_to_measure.measure]).sha256

    before = version()
    file.write_text(file.read_text().replace("return 0", "return 5"))
    assert version() == before
    file.write_text(file.read_text().replace("LEVEL = 1", "LEVEL = 2"))
    assert version() != before
    sys.modules.pop("mine_to_measure")


def test_reading_is_quick_and_imports_nothing() -> None:
    script = (
        "import sys, time\nfrom relax_quantus.base.source import Sources\nstarted = time.process_time()\n"
        "found = Sources().closure([('relax_quantus.benchmark.methods.relax', 'Strategy'), "
        "('relax_quantus.benchmark.metrics.faithfulness', 'road')])\n"
        "print(time.process_time() - started, len(found.modules), 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert float(said[0]) < 1.5
    assert int(said[1]) > 30
    assert said[2] == "False"


RUN = """
import json, sys
from relax_quantus.benchmark import BenchmarkConfig, run
config = BenchmarkConfig(datasets=("tiny",), encoders=("net",), methods=("RELAX-time", "Saliency"), threads=1,
    metrics=("SRG-bin-silence", "Selectivity", "RegionPerturbation"), max_clips=1, n_samples=20, head_clips=12, out=sys.argv[1])
found = run(config, show_progress=False)
print(json.dumps([relax_quantus.__file__, found.cells, found.reused, found.anew]))
""".replace("import json, sys", "import json, sys, relax_quantus")


@pytest.mark.usefixtures("plugin")
def test_a_run_goes_on_after_a_change_with_what_still_holds(copy: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy.parent), os.environ["PYTHONPATH"]])}

    def again() -> list[object]:
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / "out")],
            env=environment, cwd=copy.parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
        file, *rest = json.loads(done.stdout.splitlines()[-1])
        assert Path(file).parent == copy
        return rest

    assert again() == [6, 0, {}]
    for path in ("relax/estimators/surrogate.py", "base/checks.py", "benchmark/metrics/faithfulness.py"):
        (copy / path).open("a").write("\n# why this is so\n")
    for path in ("views/maps.py", "cli/console.py", "benchmark/metrics/symmetric_relevance_gain.py"):
        (copy / path).open("a").write(EFFECT)
    assert again() == [6, 4, {"metric's code": 2}]
    (copy / "relax" / "estimators" / "kernel_ridge.py").open("a").write(EFFECT)
    assert again() == [6, 3, {"method's code": 3}]


if __name__ == "__main__":
    look_at_every_call()
