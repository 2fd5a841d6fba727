"""How far one study carries: workers on PostgreSQL and behind a gRPC proxy, samplers and a worker at 10,000 trials.

python -m benchmarks.scale    (about twenty minutes, most of them asleep; writes docs/scale.md from scale_template.md)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from benchmarks.servers import Postgres, cpu_seconds, free_port
from benchmarks.simulated import start_worker
from da6401.runs.atomic_files import write_json

OUT = Path("outputs/bench/scale.json").absolute()
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
WORKERS = (1, 2, 4, 8, 16)
SECONDS, EACH = 10.0, 6  # of a trial, and how many of them a worker gets
HISTORY = (100, 1000, 3000, 10_000)
GP_HISTORY = (100, 300, 1000)
BUSY = 0.7  # of one core of the server: beyond it answers get slow
SPACE = {
    "model.filters": optuna.distributions.CategoricalDistribution((8, 16, 32)),
    "model.organisation": optuna.distributions.CategoricalDistribution(("same", "double")),
    "model.activation": optuna.distributions.CategoricalDistribution(("relu", "silu", "mish")),
    "model.dropout": optuna.distributions.CategoricalDistribution((0.0, 0.2, 0.4)),
    "augmentation": optuna.distributions.CategoricalDistribution(("none", "light", "standard")),
    "optimizer.lr": optuna.distributions.FloatDistribution(3e-4, 1e-2, log=True),
    "optimizer.weight_decay": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
}  # what sweep=part_a searches, but for batch norm


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--only", choices=("workers", "grpc", "samplers", "history", "page"))
    only = given.parse_args().only
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    measured = {
        "workers": lambda: scaling(proxied=False), "grpc": lambda: scaling(proxied=True), "samplers": samplers,
        "history": history,
    }  # fmt: skip
    for name, measure in measured.items():
        if only in (None, name):
            found[name] = measure()
            write_json(OUT, {**found, "date": str(date.today()), "cores": os.cpu_count()})
            print(name, found[name], flush=True)
    survival = OUT.with_name("survival.json")
    if survival.exists():
        found = {**json.loads(OUT.read_text(encoding="utf-8")), "survival": json.loads(survival.read_text())}
        page(found)


# ---- workers ------------------------------------------------------------------------------------------------------


def scaling(*, proxied: bool) -> list[dict[str, float]]:
    """For each number of workers: trials an hour, efficiency against one, and what a trial costs the servers."""
    rows: list[dict[str, float]] = []
    for count in WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            place.chmod(0o755)
            server = Postgres(place / "server")
            proxy = _proxy(server) if proxied else None
            address = f"grpc://127.0.0.1:{proxy[1]}" if proxy else server.url
            try:
                before = (cpu_seconds(server.pids()[0]), cpu_seconds(proxy[0].pid) if proxy else 0.0)
                trials = _sleeping_sweep(address, place, count)
                connections = _connections(server)
                after = (cpu_seconds(server.pids()[0]), cpu_seconds(proxy[0].pid) if proxy else 0.0)
            finally:
                if proxy:
                    proxy[0].kill()
                    proxy[0].wait()
                server.stop()
        rate = _rate(trials)
        rows.append(
            {
                "workers": count,
                "per_hour": 3600 * rate,
                "efficiency": rate / (count * rows[0]["per_hour"] / 3600) if rows else 1.0,
                "server_seconds": (after[0] - before[0]) / len(trials),
                "proxy_seconds": (after[1] - before[1]) / len(trials),
                "connections": connections,
            }
        )
        print(rows[-1], flush=True)
    return rows


def _sleeping_sweep(address: str, place: Path, count: int) -> list[optuna.trial.FrozenTrial]:
    total = count * EACH
    words = [
        "train", "--multirun", "study=scale", "model.dropout=interval(0.0,0.5)", "model.filters=choice(8,16,32)",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))", f"hydra.sweeper.n_trials={total}",
        f"hydra.sweeper.storage={address}",
    ]  # fmt: skip
    workers = [start_worker(words, place=place, seconds=SECONDS, epochs=5) for _ in range(count)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0, f"a worker has failed; its log is in {place}"
    trials = optuna.load_study(study_name="scale", storage=_plain(address)).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * total
    return trials


def _plain(address: str) -> Any:
    from da6401.study.storage import open_storage

    return open_storage(address, minutes=1)


def _rate(trials: Sequence[optuna.trial.FrozenTrial]) -> float:
    """Trials a second while all workers are at work: between each worker's first end and its last.

    The start of the processes, two cores for sixteen of them, is not the study's doing, nor is the wait at the end.
    """
    ends: dict[str, list[float]] = {}
    for trial in trials:
        assert trial.datetime_complete is not None, "all are complete"
        ends.setdefault(trial.user_attrs["owner"], []).append(trial.datetime_complete.timestamp())
    return sum((len(own) - 1) / (max(own) - min(own)) for own in ends.values() if len(own) > 1)


def _proxy(server: Postgres) -> tuple[subprocess.Popen[str], int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "da6401.sweep.proxy", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "DA6401_STORAGE": server.url}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "serving" in process.stdout.readline(), "the proxy has not started"
    return process, port


def _connections(server: Postgres) -> float:
    """The most that were open at a time, by the server's own log of them."""
    open_now, most = 0, 0
    for line in (server.data / "log").read_text(errors="replace").splitlines():
        open_now += ("connection authorized" in line) - ("disconnection:" in line)
        most = max(most, open_now)
    return most


# ---- samplers -----------------------------------------------------------------------------------------------------


def samplers() -> dict[str, dict[str, float]]:
    """Seconds to suggest one trial's parameters, by sampler and number of finished trials; the median of three."""
    made: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "random": lambda: optuna.samplers.RandomSampler(seed=0),
        "tpe_joint (the default)": lambda: optuna.samplers.TPESampler(seed=0, constant_liar=True),
        "tpe": lambda: optuna.samplers.TPESampler(seed=0, multivariate=False, constant_liar=False),
        "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=0),
        "gp": lambda: optuna.samplers.GPSampler(seed=0),
    }
    found: dict[str, dict[str, float]] = {}
    for name, make in made.items():
        found[name] = {}
        for count in GP_HISTORY if name == "gp" else HISTORY:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                study = optuna.create_study(direction="maximize", sampler=make())
            study.add_trials(_finished(count))
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                trial = study.ask(SPACE)
                seconds.append(time.perf_counter() - started)
                study.tell(trial, 0.5)
            found[name][str(count)] = statistics.median(seconds)
            print(name, count, found[name][str(count)], flush=True)
    return found


def _finished(count: int) -> list[optuna.trial.FrozenTrial]:
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(count):
        lr, decay = float(10 ** rng.uniform(-3.5, -2)), float(10 ** rng.uniform(-5, -1))
        chosen = {
            name: distribution.choices[int(rng.integers(len(distribution.choices)))]
            for name, distribution in SPACE.items()
            if isinstance(distribution, optuna.distributions.CategoricalDistribution)
        }
        values = {**chosen, "optimizer.lr": lr, "optimizer.weight_decay": decay}
        value = float(1 - abs(np.log10(lr) + 2.7) + rng.normal(0, 0.05))
        trials.append(create_trial(params=values, distributions=SPACE, value=value, user_attrs={"owner": "0-x"}))
    return trials


# ---- history ------------------------------------------------------------------------------------------------------


def history() -> dict[str, dict[str, float]]:
    """One worker, runs that return at once, on a study that has 0 or 10,000 trials already: seconds a trial."""
    found: dict[str, dict[str, float]] = {}
    for sampler in ("tpe_joint", "random"):
        found[sampler] = {}
        for count in (0, HISTORY[-1]):
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                place.chmod(0o755)
                server = Postgres(place / "server")
                try:
                    found[sampler][str(count)] = _seconds_a_trial(server, place, count, sampler)
                finally:
                    server.stop()
            print(sampler, count, found[sampler][str(count)], flush=True)
    return found


def _seconds_a_trial(server: Postgres, place: Path, count: int, sampler: str) -> float:
    study = optuna.create_study(study_name="scale", storage=server.url, direction="maximize")
    study.add_trials(_finished(count))
    more = 20
    words = [
        "train", "--multirun", "sweep=part_a", "model.batch_norm=true", "study=scale", "sweep.on_space_change=extend",
        f"hydra/sweeper/sampler={sampler}", f"hydra.sweeper.n_trials={count + more}",
        f"hydra.sweeper.storage={server.url}",
    ]  # fmt: skip
    worker = start_worker(words, place=place, seconds=0.0, epochs=1)
    worker.join()
    assert worker.exitcode == 0, f"the worker has failed; its log is in {place}"
    ends = [
        trial.datetime_complete.timestamp()
        for trial in study.get_trials(deepcopy=False)[count:]
        if trial.datetime_complete is not None
    ]
    return (ends[-1] - ends[0]) / (len(ends) - 1)


# ---- the page -----------------------------------------------------------------------------------------------------


def page(found: dict[str, Any]) -> None:
    """docs/scale.md from its template and the figures."""
    text = (Path(__file__).parent / "scale_template.md").read_text(encoding="utf-8")
    lines = {
        "head": f"Measured on {found['date']}, {found['cores']} cores that servers and workers share, no GPU, "
                "by `python -m benchmarks.survival` and `python -m benchmarks.scale`.",
        "workers": _workers_table(found["workers"], "server_seconds", "PostgreSQL"),
        "grpc": _workers_table(found["grpc"], "proxy_seconds", "proxy"),
        "plan": _plan(found),
        "samplers": _samplers_table(found["samplers"]),
        "history": _history_table(found["history"]),
        "survival": _survival(found["survival"]),
    }  # fmt: skip
    for name, value in lines.items():
        text = text.replace("{" + name + "}", value)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def _workers_table(rows: Sequence[dict[str, float]], cost: str, who: str) -> str:
    lines = [f"| workers | trials an hour | efficiency | {who} CPU a trial | connections |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['workers']} | {row['per_hour']:,.0f} | {row['efficiency']:.2f} | {1000 * row[cost]:.0f} ms "
        f"| {row['connections']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def cost_of(rows: Sequence[dict[str, float]], name: str) -> tuple[float, float]:
    """A trial's cost as a + b x workers, least squares: each finished trial is read by every worker."""
    slope, start = np.polyfit([row["workers"] for row in rows], [row[name] for row in rows], 1)
    return max(float(start), 0.0), max(float(slope), 0.0)


def most_workers(fixed: float, each: float, *, length: float) -> int:
    """The most workers whose trials of ``length`` seconds keep one core of the server at BUSY."""
    workers = 1
    while (workers + 1) / length * (fixed + each * (workers + 1)) <= BUSY:
        workers += 1
    return workers


def _plan(found: dict[str, Any]) -> str:
    lines = ["| a trial takes | | workers at most | trials an hour |", "|---|---|---|---|"]
    for name, rows, cost in (
        ("PostgreSQL alone", found["workers"], "server_seconds"), ("one proxy", found["grpc"], "proxy_seconds")
    ):  # fmt: skip
        fixed, each = cost_of(rows, cost)
        for length, said in ((60, "1 min"), (600, "10 min"), (3600, "1 h")):
            workers = most_workers(fixed, each, length=length)
            lines.append(f"| {said} | {name} | {workers:,} | {3600 / length * workers:,.0f} |")
        lines.append(f"| | {name}: a trial costs {1000 * fixed:.1f} ms + {1000 * each:.2f} ms for each worker | | |")
    return "\n".join(lines)


def _samplers_table(found: dict[str, dict[str, float]]) -> str:
    heads = sorted({int(count) for row in found.values() for count in row})
    lines = [f"| sampler | {' | '.join(f'{count:,}' for count in heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in found.items():
        cells = [f"{row[str(count)]:.3f} s" if str(count) in row else "" for count in heads]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _history_table(found: dict[str, dict[str, float]]) -> str:
    lines = ["| sampler | empty study | 10,000 trials |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {name} | {row['0']:.3f} s | {row[str(HISTORY[-1])]:.3f} s |" for name, row in found.items())]
    )


def _survival(found: dict[str, Any]) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in found["states"].items())
    return (
        f"{found['trials']:,} simulated trials, {found['workers']} workers, {found['kills']} of them killed (SIGKILL), "
        f"the server crashed and restarted {found['server_restarts']} time: {states}; every number there once: "
        f"{found['numbers_are_all']}; folders agree with the study: {found['folders_agree']}; "
        f"{found['taken_up']} trials were resumed after a kill; {found['seconds']:.0f} s."
    )


if __name__ == "__main__":
    main()
