"""Times contenders side by side: interleaved in random order, each in the interpreter it needs.

A benchmark lists cases; a case has contenders; a contender is a function that imports what it
needs, prepares the data and returns the call to be timed. A contender that cannot be imported is
reported as absent. Peers that do not go into one environment with the rest are run by another
interpreter:

    python benchmarks/dispatch.py --python timm=../timm-env/bin/python --output results.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

Call = Callable[[], object]
_TIMES = ("first_call_s", "median_ms", "min_ms", "ratio", "calls")
VERSIONS = ("jax", "flax", "numpy", "torch", "timm", "keras", "kornia", "grain", "datarax")


class Figures(dict[str, float]):
    """What a call returns to have more than its time reported: numbers by name."""


@dataclass(frozen=True)
class Case:
    """One workload.

    Args:
      name: what it is called in the results.
      contenders: by name, a function that returns the call to be timed. The call must not return
        before its result is there (`jax.block_until_ready`).
      reference: the contender to whose median the others are put in proportion.
      calls: how often each contender is called.
      warm_up: how often it is called before, after its first call.
    """

    name: str
    contenders: dict[str, Callable[[], Call]]
    reference: str
    calls: int = 200
    warm_up: int = 10


class Worker:
    """One interpreter that prepares and times contenders on request."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, sys.argv[0], "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker ended during {request}")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(cases: Sequence[Case]) -> None:
    """Answers requests on standard input: prepares a contender, or calls it and tells the times."""
    answers, sys.stdout = sys.stdout, sys.stderr
    by_name = {case.name: case for case in cases}
    ready: dict[tuple[str, str], Call] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = request["case"], request["contender"]
        answer: dict[str, Any] = {}
        if request["do"] == "prepare":
            try:
                ready[key] = by_name[key[0]].contenders[key[1]]()
                start = time.perf_counter()
                ready[key]()
                answer["first_call_s"] = time.perf_counter() - start
                for _ in range(by_name[key[0]].warm_up):
                    ready[key]()
            except ImportError as error:
                answer["absent"] = str(error)
            except Exception as error:
                answer["absent"] = f"failed: {type(error).__name__}: {error}"[:300]
        elif request["do"] == "forget":
            ready.pop(key, None)
        else:
            call, times, figures = ready[key], [], []
            for _ in range(request["calls"]):
                start = time.perf_counter()
                result = call()
                times.append(time.perf_counter() - start)
                figures += [result] if isinstance(result, Figures) else []
                del result
            answer |= {"times": times, "figures": figures}
        print(json.dumps(answer), file=answers, flush=True)


def measure(case: Case, workers: dict[str, Worker], seed: int = 0) -> dict[str, Any]:
    """Runs one case and returns medians, minima and ratios by contender."""
    results: dict[str, Any] = {}
    times: dict[str, list[float]] = {}
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in case.contenders}
    for name in case.contenders:
        answer = worker_of(name, workers).ask(do="prepare", case=case.name, contender=name)
        results[name] = answer
        if "absent" not in answer:
            times[name] = []
    shuffle = random.Random(seed).shuffle
    turn = max(1, case.calls // 40)
    for _ in range(-(-case.calls // turn)):
        order = list(times)
        shuffle(order)
        for name in order:
            request = {"do": "time", "case": case.name, "contender": name, "calls": turn}
            answer = worker_of(name, workers).ask(**request)
            times[name] += answer["times"]
            figures[name] += answer["figures"]
    reference = statistics.median(times[case.reference])
    for name, taken in times.items():
        median = statistics.median(taken)
        results[name] |= {
            "median_ms": 1e3 * median,
            "min_ms": 1e3 * min(taken),
            "ratio": median / reference,
            "calls": len(taken),
        }
        for figure in figures[name][0] if figures[name] else ():
            values = [call[figure] for call in figures[name]]
            results[name][figure] = statistics.median(values)
    for name in case.contenders:
        worker_of(name, workers).ask(do="forget", case=case.name, contender=name)
    return {"reference": case.reference, "contenders": results}


def worker_of(contender: str, workers: dict[str, Worker]) -> Worker:
    """The worker for a contender: that of the peer it is named after, or the common one."""
    return workers.get(contender.split(",")[0].split()[0], workers[""])


def file_of(package: str, *parts: str) -> Any:
    """A module of a package by its file, without the package's other imports and what they need.

    Raises:
      ImportError: if the package is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed")
    path = Path(found.origin).parent.joinpath(*parts)
    spec = importlib.util.spec_from_file_location(f"{package}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        import jax

        devices = [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    except ImportError:
        devices = []
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "devices": devices,
        "versions": versions,
    }


def table(name: str, result: dict[str, Any]) -> str:
    """One case as text."""
    lines = [f"{name}  (ratio to {result['reference']})"]
    for contender, row in result["contenders"].items():
        if "absent" in row:
            lines.append(f"  {contender:36} absent: {row['absent']}")
        else:
            lines.append(
                f"  {contender:36} {row['median_ms']:9.4f} ms  min {row['min_ms']:9.4f} ms  "
                f"x {row['ratio']:6.2f}  first {row['first_call_s']:6.2f} s"
            )
            more = {name: value for name, value in row.items() if name not in _TIMES}
            if more:
                lines.append(" " * 40 + ", ".join(f"{k} {v:.3g}" for k, v in more.items()))
    return "\n".join(lines)


def main(cases: Sequence[Case]) -> None:
    """Command line of a benchmark."""
    parser = argparse.ArgumentParser(description="Times contenders side by side.")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help="interpreter for the contenders whose name starts with PEER",
    )
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(cases)
        return
    pythons = {"": sys.executable, **dict(entry.split("=", 1) for entry in options.python)}
    workers = {peer: Worker(python) for peer, python in pythons.items()}
    results = {}
    try:
        for case in cases:
            if options.only in case.name:
                results[case.name] = measure(case, workers)
                print(table(case.name, results[case.name]), flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    if options.output:
        report = {"machine": machine(), "cases": results}
        options.output.write_text(json.dumps(report, indent=1) + "\n")
