"""What a GPU does with the codec, in one command: its tests, then speeds beside what they are held to.

    make gpu [GPU_DATA=FOLDER]                   tests and all parts
    python benchmarks/gpu.py [--parts tests card ..] [--minutes 7.5]
    python benchmarks/gpu.py --tiny              everything at a few pixels, interpreted where there is no GPU

Material is what GPU_DATA has, by default that of all benchmarks: PNG, y4m and raw files, others where PyAV is there.
Parts are processes of their own with a time limit each, so that one that fails costs no other; one that takes too long
says where it is before it is stopped.  Rows go to `results/gpu-CARD-COMMIT.tsv` and, with what is known of the card, to
a JSON file beside it, what the parts print to `work/gpu/gpu.log`; all three also to $OUT where that is set, anew after
each part.  What is printed at the end is short.  Where there is no .git, the commit is $PGSVC_COMMIT.

Times are medians between device events after a warm-up, of inputs in rotation.  `ratio` is how much better a figure is
than its target: 1 and more is enough.  Qualities to reach are those of `results/gpu-reference.tsv`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from results_file import ROOT, WORK, ResultsFile, commit

LOG = WORK / "gpu" / "gpu.log"
LEAST_SECONDS = 5.0  # for which a part is begun
_GRACE = (6.0, 3.0)  # seconds that a part has to say where it is: as an exception, then as its threads lie
_LINE = 160  # characters of what is printed
_TROUBLE, _TABLE = 4500, 5500  # characters at most of what failed and of the rows, at the end
COLUMNS = ["part", "name", "value", "unit", "target", "ratio", "note", "device"]


class Part(NamedTuple):
    """One process of the benchmark."""

    module: str  # with `measure(rows, device, tiny=..)`; "" = the tests
    seconds: int  # at most
    reserved: int  # of them, kept from parts that come before


# In this order: the tests compile what the others run, eight kernels at a time; then what others stand on, and what can
# be done without last.
PARTS = {
    "tests": Part("", 130, 60),
    "card": Part("gpu_parts.card", 30, 10),
    "raster": Part("gpu_parts.raster", 90, 50),
    "fit": Part("gpu_parts.fit", 60, 35),
    "still": Part("gpu_parts.still", 70, 40),
    "clip": Part("gpu_parts.clip", 90, 45),
    "stills": Part("gpu_parts.stills", 80, 40),
    "decode": Part("gpu_parts.decode", 60, 30),
    "compare": Part("gpu_parts.compare", 90, 15),
}
_IS_CUDA_TEST = re.compile(r"mark\.cuda|def test_\w*(?:cuda|triton)", re.IGNORECASE)


class Outcome(NamedTuple):
    """How a part ended."""

    part: str
    seconds: float
    ending: str  # "done", "failed: exit code N", "stopped after N s"
    said: str = ""  # last, if it is worth telling
    trouble: tuple[str, ...] = ()  # lines that say why it is not done

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.part:8} {self.ending}, {self.seconds:.0f} s {self.said}".rstrip()


def cuda_tests() -> list[str]:
    """Files with tests of CUDA code; others would be in the way where their dependencies are missing."""

    def has_some(path: Path) -> bool:
        if path.name in ("test_project.py", "test_cuda_compilation.py"):  # texts, not code; what runs is compiled, too
            return False
        is_named = re.search("cuda|triton", path.stem) is not None
        return is_named or _IS_CUDA_TEST.search(path.read_text(encoding="utf-8")) is not None

    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py")) if has_some(path)]


def command_of(name: str, rows: Path, *, tiny: bool) -> list[str]:
    """What a part runs."""
    if PARTS[name].module:
        return [sys.executable, __file__, "--run", name, "--rows", str(rows), *(["--tiny"] if tiny else [])]
    # warnings of newer libraries than those of `make test` are no failures here
    options = ["-W", "default", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-k", "cuda or triton"]
    told = ["-vv", "--tb=short", "--durations=8"]  # a line for each test, should there be no end
    if find_spec("xdist"):  # most of the time goes into compiling kernels
        options += ["-n", "8", "--dist", "worksteal"]
    if find_spec("pytest_timeout"):
        options += ["--timeout", "60", "--timeout-method", "thread"]  # which a kernel that hangs does not outlast
    return [sys.executable, "-m", "pytest", *options, *told, *cuda_tests()]


def trouble_of(lines: Sequence[str]) -> tuple[str, ...]:
    """Of what a part printed, what says most about why it failed: pytest's summary and errors, or the end."""
    summary = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    errors = [line for line in lines if re.match(r"E {3}\S", line)]
    if not summary and not errors:
        return tuple(lines[-12:])
    return (*summary[:20], *dict.fromkeys(errors[:40]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Have a part end, if need be by force, and say where it was: pytest its failures so far, all where they hang."""
    for told, seconds in zip((signal.SIGINT, signal.SIGABRT), _GRACE, strict=True):
        process.send_signal(told)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with suppress(ProcessLookupError):  # its processes are gone, too
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_part(name: str, rows: Path, seconds: float, *, tiny: bool) -> Outcome:
    """Run one part in a process group of its own; what it prints goes to the log."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    for variable in ("GPU_DATA", "PGSVC_BENCHMARKS", "PGSVC_DATA"):  # the part runs in another folder
        if environment.get(variable):
            environment[variable] = os.path.abspath(environment[variable])
    if not tiny:
        environment["PGSVC_REQUIRE_CUDA"] = "1"
    if not PARTS[name].module:  # its processes share the cores
        environment |= {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    LOG.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with LOG.open("a+b") as log:
        log.write(f"--- {name}, {seconds:.0f} s at most\n".encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            command_of(name, rows, tiny=tiny), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
            ending = f"failed: exit code {code}" if code else "done"
        except subprocess.TimeoutExpired:
            _stop(process)
            ending = f"stopped after {seconds:.0f} s"
        log.seek(begin)
        lines = [line[:_LINE] for line in log.read().decode("utf-8", "replace").strip().splitlines()]
    said = lines[-1].strip("= ") if lines and not PARTS[name].module else ""
    trouble = () if ending == "done" else trouble_of(lines)
    return Outcome(name, time.monotonic() - started, ending, said, trouble)


def run_all(
    names: Sequence[str],
    minutes: float,
    *,
    tiny: bool,
    keep: Callable[[list[dict[str, Any]], list[Outcome]], object] = lambda rows, outcomes: None,
) -> tuple[list[dict[str, Any]], list[Outcome]]:
    """All rows and how the parts ended; parts for which no time is left are left out.

    Args:
        names: of parts.
        minutes: for all of them.
        tiny: a few pixels.
        keep: told what there is, after each part.
    """
    end = time.monotonic() + 60 * minutes
    outcomes: list[Outcome] = []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.touch()
        for number, name in enumerate(names):
            reserved = sum(PARTS[later].reserved for later in names[number + 1 :])
            seconds = min(PARTS[name].seconds, end - time.monotonic() - reserved)
            if seconds < LEAST_SECONDS:
                outcomes.append(Outcome(name, 0.0, "left out: no time"))
                continue
            outcomes.append(run_part(name, path, seconds, tiny=tiny))
            print(outcomes[-1].line, flush=True)
            text = path.read_text(encoding="utf-8")
            if not text.endswith("\n"):  # cut short
                text = text.rpartition("\n")[0] + "\n"
                path.write_text(text, encoding="utf-8")
            rows = [json.loads(line) for line in text.splitlines() if line]
            keep(rows, outcomes)
    return rows, outcomes


def write(name: str, rows: Sequence[dict[str, Any]], outcomes: Sequence[Outcome], card: dict[str, str]) -> list[Path]:
    """The TSV, and the same with the facts as JSON; likewise in $OUT."""
    with ResultsFile(name, COLUMNS, is_shown=False) as results:
        for row in rows:
            results.add(**{column: row[column] for column in COLUMNS})
    told = {
        "facts": card,
        "parts": [outcome._asdict() for outcome in outcomes],
        "rows": list(rows),
    }
    paths = [results.path, results.path.with_suffix(".json")]
    paths[1].write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if os.environ.get("OUT"):
        for path in [*paths, *([LOG] if LOG.exists() else [])]:
            shutil.copy(path, os.environ["OUT"])
    return paths


def _shortened(lines: Sequence[str], most: int) -> list[str]:
    """As many lines as fit into so many characters."""
    kept: list[str] = []
    for number, line in enumerate(lines):
        most -= len(line) + 1
        if most < 0:
            return [*kept, f"and {len(lines) - number} lines more"]
        kept.append(line)
    return kept


def table(rows: Sequence[dict[str, Any]], outcomes: Sequence[Outcome]) -> str:
    """What failed, rows that are held to something, how many there are besides, and how the parts ended."""

    def line(row: dict[str, Any]) -> str:
        value = "-" if row["value"] is None else f"{row['value']:.4g}"
        target = "" if row["target"] is None else f" (target {row['target']:g}, ratio {row['ratio'] or 0:.2f})"
        return f"{row['part']:8} {row['name']:58} {value:>9} {row['unit']}{target} {row['note']}".rstrip()[:_LINE]

    held = [row for row in rows if row["target"] is not None]
    failed = [row for row in rows if row["value"] is None and row["target"] is None]
    troubled = [outcome for outcome in outcomes if outcome.trouble]
    trouble: list[str] = []
    for outcome in troubled:
        told = (f"--- {outcome.part}: {outcome.ending}", *outcome.trouble)
        trouble += _shortened(told, _TROUBLE // len(troubled))
    others = f"{len(rows) - len(held) - len(failed)} more rows are in the files"
    shown = _shortened([line(row) for row in [*failed, *held]], _TABLE)
    return "\n".join([*trouble, *shown, others, *(outcome.line for outcome in outcomes)])


def run_here(name: str, rows: Path, *, tiny: bool) -> None:
    """The part itself, in this process."""
    from gpu_parts.timing import Rows, device

    at = device()
    import_module(PARTS[name].module).measure(Rows(rows, name, at), at, tiny=tiny)


def main() -> int:
    """Run the parts; exit code 0 where all were done, 1 where there is no GPU or a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together")
    parser.add_argument("--tiny", action="store_true", help="a few pixels, to see that everything runs")
    parser.add_argument("--run", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(options.run, options.rows, tiny=options.tiny)
        return 0
    sys.path.insert(0, str(ROOT))  # nothing is installed; the parts get it in PYTHONPATH
    try:
        from gpu_parts.timing import INTERPRETER, device, device_name, facts
    except ImportError as error:
        print(f"make gpu: {error}", file=sys.stderr)
        return 1
    at = device()
    if at.type != "cuda":
        if not options.tiny:
            print("make gpu: no NVIDIA GPU that this torch can use", file=sys.stderr)
            return 1
        os.environ["TRITON_INTERPRET"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; parts are stopped by it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    card = facts(at)
    LOG.unlink(missing_ok=True)
    label = INTERPRETER if at.type != "cuda" else device_name(at)
    slug = re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")
    name = f"gpu-{slug}-{commit().rstrip('+')}"
    rows, outcomes = run_all(
        options.parts, options.minutes, tiny=options.tiny, keep=lambda *so_far: write(name, *so_far, card)
    )
    paths = write(name, rows, outcomes, card)
    print("\n" + table(rows, outcomes))
    print(" ".join(os.path.relpath(path) for path in paths))
    return 0 if all(outcome.ending == "done" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
