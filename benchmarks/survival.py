"""Four workers on one PostgreSQL, one killed every few seconds, the server restarted once: is every trial there once?

python -m benchmarks.survival [--trials 1000]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from benchmarks.servers import Postgres
from benchmarks.simulated import start_worker
from da6401.runs.atomic_files import write_json
from da6401.study.storage import read_only

OUT = Path("outputs/bench/survival.json").absolute()
WORKERS, OBJECTIVE_SECONDS, KILL_SECONDS, RESTARTED_AT = 4, 0.02, 3.0, 0.4


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--trials", type=int, default=1000)
    trials = given.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder, "server"))
        try:
            found = survive(server, Path(folder), trials=trials, kill_seconds=KILL_SECONDS, say=print)
        finally:
            server.stop("immediate")
    write_json(OUT, found)
    print(found)


def survive(
    server: Postgres, place: Path, *, trials: int, kill_seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Sweep, kill, restart; what the study holds at the end, and how it went there."""
    place.chmod(0o755)
    words = [
        "train", "--multirun", "study=survival", "model.dropout=interval(0.0,0.5)",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))", "hydra/sweeper/sampler=random", f"hydra.sweeper.n_trials={trials}",
        f"hydra.sweeper.storage={server.url}", "sweep.retries=1000", "sweep.lease_seconds=2",
    ]  # fmt: skip
    rng = random.Random(0)
    started = time.monotonic()
    workers = [start_worker(words, place=place, seconds=OBJECTIVE_SECONDS) for _ in range(WORKERS)]
    kills, restarted, next_kill = 0, False, started + kill_seconds
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.1)
        # Looked at often, not only when a worker is killed: on a quick machine few trials need two kills' time.
        if not restarted and _finished(place) > RESTARTED_AT * trials:
            server.stop("immediate")
            time.sleep(2)
            server.start()
            restarted = True
            say("the server was restarted")
        if time.monotonic() >= next_kill:
            index = rng.randrange(WORKERS)
            if workers[index].is_alive():
                workers[index].kill()
                kills += 1
                workers[index].join()
                workers[index] = start_worker(words, place=place, seconds=OBJECTIVE_SECONDS)
            next_kill = time.monotonic() + kill_seconds
            say(f"{time.monotonic() - started:.0f} s: {_finished(place)} of {trials} trials, {kills} kills")
    with read_only(server.url) as storage:
        held = optuna.load_study(study_name="survival", storage=storage).get_trials(deepcopy=False)
    return {
        "trials": trials,
        "workers": WORKERS,
        "kills": kills,
        "server_restarts": int(restarted),
        "exit_codes": [worker.exitcode for worker in workers],
        "said": [_last_words(place / f"{worker.pid}.log") for worker in workers if worker.exitcode],
        "states": dict(Counter(trial.state.name for trial in held)),
        "numbers_are_all": [trial.number for trial in held] == list(range(trials)),
        "folders_agree": all(_agrees(trial, place) for trial in held),
        "taken_up": sum(int(trial.user_attrs["attempts"]) > 1 for trial in held),
        "seconds": time.monotonic() - started,
    }


def _finished(place: Path) -> int:
    return len(list(place.glob("outputs/sweeps/survival/trial-*/result.json")))


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-500:] if log.exists() else "nothing"


def _agrees(trial: FrozenTrial, place: Path) -> bool:
    """Whether a trial's folder holds the value that the study has."""
    from da6401.runs.run_folder import read_result

    return read_result(place / "outputs/sweeps/survival" / f"trial-{trial.number}").val_accuracy == trial.value


if __name__ == "__main__":
    main()
