"""Studies that machines share: real servers on the loopback address, workers that are killed, servers that go away."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import optuna
import psycopg
import pytest
from filelock import FileLock
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.servers import HAS_POSTGRES, Postgres, free_port
from benchmarks.simulated import start_worker
from benchmarks.survival import survive
from da6401.cli import main
from da6401.config.compose import saved_config
from da6401.config.schema import SweepConfig
from da6401.errors import TakenOverError, UserError
from da6401.runs.run_folder import read_result
from da6401.study.objective import Objective
from da6401.study.retrying_storage import RetryingStorage, outages
from da6401.study.storage import is_shared, open_storage
from da6401.study.trial_store import TrialStore
from da6401.sweep.leases import ATTEMPTS, HEARTBEAT, OWNER, Worker, owner_of
from da6401.sweep.open_study import HAS_FIRST, is_begun, lacks_first
from da6401.sweep.open_study import open_study as create_or_open
from da6401.sweep.suggest import Draft
from da6401.sweep.trial import TrialWatcher
from da6401.training.run import run
from tests.forked import Command, begun
from tests.sweep.sweeps import FOLDER, RATE, SWEEP, N, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),  # gRPC, since Optuna 4.2
]
needs_postgres = pytest.mark.skipif(not HAS_POSTGRES, reason="no PostgreSQL server on this machine (pg_ctl)")
LEASE = 1.0
MACHINES: list[Worker] = []
ACCURACY = Objective.of(SweepConfig())


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    # Not in pytest's folder, which another pytest that starts meanwhile closes to the server's user.
    with tempfile.TemporaryDirectory(prefix="da6401-postgres-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as place:
        server = Postgres(Path(place) / "server", durable=False)
        try:
            yield server
        finally:
            if (server.data / "postmaster.pid").exists():
                server.stop("immediate")


@pytest.fixture
def postgres(server: Postgres, tmp_path: Path) -> Postgres:
    """The server with an empty database, of this test alone."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        (number,) = connection.execute("SELECT count(*) FROM pg_database").fetchone() or (0,)
        connection.execute(f"CREATE DATABASE test_{number}".encode())
    own = copy.copy(server)
    own.url = server.url.replace("/postgres", f"/test_{number}")
    return own


@pytest.fixture(params=["postgresql", "grpc", "journal"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A storage of each kind that machines can share."""
    if request.param == "journal":
        yield f"journal://{tmp_path}/study.log"
        return
    if not HAS_POSTGRES:
        pytest.skip("no PostgreSQL server on this machine (pg_ctl)")
    server: Postgres = request.getfixturevalue("postgres")
    if request.param == "postgresql":
        yield server.url
        return
    with proxy(server) as place:
        yield place


class proxy:  # noqa: N801 - used as a function
    """`python -m da6401.sweep.proxy` before a server."""

    def __init__(self, server: Postgres) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "da6401.sweep.proxy", "--host", "127.0.0.1", "--port", str(self.port)],
            env={**os.environ, "DA6401_STORAGE": server.url}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        assert "serving" in self.process.stdout.readline()
        return f"grpc://127.0.0.1:{self.port}"

    def __exit__(self, *_: object) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


def machine(study: optuna.Study, folder: Path, *, retries: int = 2) -> Worker:
    """A worker on a machine of its own: with a folder that no other worker sees."""
    MACHINES.append(Worker(study, folder, retries=retries, lease_seconds=LEASE))
    return MACHINES[-1]


@pytest.fixture(autouse=True)
def _no_heart_beats_on() -> Iterator[None]:
    """Nobody writes to a storage that is gone with its folder."""
    yield
    while MACHINES:
        die(MACHINES.pop())


def opened(address: str) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(address, minutes=1), load_if_exists=True)


def die(worker: Worker) -> None:
    """What the end of its process does, seen from another machine."""
    worker.closed.set()


def claimed_by(worker: Worker, *, total: int) -> FrozenTrial:
    """The trial that a worker gets once another's lease has run out."""
    return wait_until(lambda: worker.claim(total), seconds=20)


# ---- claims -------------------------------------------------------------------------------------------------------


def test_workers_of_many_machines_never_claim_a_trial_twice_or_beyond_the_total(address: str, tmp_path: Path) -> None:
    total, each = 24, 6
    open_storage(address, minutes=1)
    opened(address)
    claimed: list[int] = []

    def work(index: int) -> None:
        worker = machine(optuna.load_study(study_name="s", storage=open_storage(address, minutes=1)),
                         tmp_path / str(index))  # fmt: skip
        while (trial := worker.claim(total)) is not None:
            claimed.append(trial.number)
            worker.study.tell(trial.number, 0.5)
        worker.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(total))
    finished = [trial for trial in opened(address).trials if trial.state is TrialState.COMPLETE]
    assert [trial.number for trial in finished] == list(range(total))


def test_a_heart_that_stands_still_loses_its_trial_and_one_that_beats_keeps_it(address: str, tmp_path: Path) -> None:
    study = opened(address)
    alive, dead, other = (machine(study, tmp_path / name) for name in ("a", "b", "c"))
    kept, lost = alive.claim(total=2), dead.claim(total=2)
    assert kept is not None
    assert lost is not None
    assert other.claim(total=2) is None  # it has only begun to listen
    die(dead)
    taken = claimed_by(other, total=2)
    assert taken.number == lost.number
    assert study.trials[taken.number].user_attrs[ATTEMPTS] == 2
    assert alive.owns(kept)
    assert study.trials[kept.number].user_attrs[HEARTBEAT] > 1
    assert not dead.owns(lost)
    watcher = TrialWatcher(study, TrialStore(study), lost.number, objective=ACCURACY, steps=9, owner=dead.name)
    with pytest.raises(TakenOverError, match="taken over by"):
        watcher.epoch_done(1, {"val_accuracy": 0.5})
    assert study.trials[lost.number].intermediate_values == {}
    alive.close()
    other.close()
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 2


def test_a_trial_whose_workers_die_too_often_fails_on_any_storage(address: str, tmp_path: Path) -> None:
    study = opened(address)
    for attempt in range(2):
        dying = machine(study, tmp_path / str(attempt), retries=1)
        claimed_by(dying, total=1)
        die(dying)
    last = machine(study, tmp_path / "last", retries=1)
    wait_until(lambda: not last.others_running(), seconds=20)
    assert study.trials[0].state is TrialState.FAIL
    assert study.trials[0].user_attrs["reason"] == "killed 2 times"


def test_a_trial_claimed_beyond_a_smaller_total_waits_for_a_larger_one(tmp_path: Path) -> None:
    study = opened(f"journal://{tmp_path}/study.log")
    study.add_trial(create_trial(state=TrialState.WAITING))
    study.add_trial(create_trial(state=TrialState.WAITING))
    worker = machine(study, tmp_path)
    first = worker.claim(total=1)
    assert first is not None
    assert worker.claim(total=1) is None
    second = worker.claim(total=2)
    assert second is not None
    assert second.number == 1
    worker.close()


def test_silence_counts_from_when_the_storage_could_be_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(f"journal://{tmp_path}/study.log")
    dead, other = machine(study, tmp_path / "a"), machine(study, tmp_path / "b")
    assert dead.claim(total=1) is not None
    die(dead)
    assert other.claim(total=1) is None
    now = time.monotonic()
    monkeypatch.setattr("da6401.sweep.leases.time.monotonic", lambda: now + 10 * LEASE)
    monkeypatch.setattr("da6401.sweep.leases.outages", lambda storage: 1)  # it was away meanwhile
    assert other.claim(total=1) is None, "nobody could be heard: that is not silence"
    monkeypatch.setattr("da6401.sweep.leases.time.monotonic", lambda: now + 20 * LEASE)
    assert other.claim(total=1) is not None


# ---- what a study tries first -------------------------------------------------------------------------------------


def first_rates(address: str, *words: str, total: int) -> list[float]:
    """The learning rates of a sweep's trials, as the study that it leaves has them."""
    rate = "optimizer.lr=interval(0.0005,0.01)"
    assert main([*SWEEP, rate, f"{N}{total}", f"hydra.sweeper.storage={address}", *words]) == 0
    study = optuna.load_study(study_name="s", storage=open_storage(address, minutes=1))
    return [trial.params["optimizer.lr"] for trial in study.trials]


def test_a_command_that_is_refused_leaves_a_study_its_first_trials(tmp_path: Path) -> None:
    address, given = f"journal://{tmp_path}/study.log", "hydra.sweeper.first=[{optimizer.lr: 0.007}]"
    words = [*SWEEP, "optimizer.lr=interval(0.0005,0.01)", f"hydra.sweeper.storage={address}"]
    assert main([*words, given, "sweep.warm_start=mistyped"]) == 2
    assert first_rates(address, given, total=2) == [0.001, 0.007]


def test_a_study_whose_creator_was_killed_gets_its_first_trials_and_those_of_older_versions_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("da6401.sweep.prepare.FIRST_SECONDS", 0.3)
    given = "hydra.sweeper.first=[{optimizer.lr: 0.007}]"
    killed, older = f"journal://{tmp_path}/killed.log", f"journal://{tmp_path}/older.log"
    study, _ = create_or_open(name="s", storage=open_storage(killed, minutes=1), objective=ACCURACY)
    study.enqueue_trial({"optimizer.lr": 0.001})  # in the middle of it
    assert first_rates(killed, given, total=2) == [0.001, 0.007]
    optuna.create_study(study_name="s", storage=open_storage(older, minutes=1), direction="maximize").enqueue_trial(
        {"optimizer.lr": 0.002}
    )
    assert 0.007 not in first_rates(older, given, total=3)


def test_of_two_processes_that_start_a_study_one_enqueues(tmp_path: Path) -> None:
    storage = open_storage(f"journal://{tmp_path}/study.log", minutes=1)
    first, created = create_or_open(name="s", storage=storage, objective=ACCURACY)
    second, again = create_or_open(name="s", storage=storage, objective=ACCURACY)
    assert (created, again) == (True, False)
    assert not is_begun("s", storage)
    assert lacks_first(second, seconds=0)
    threading.Timer(0.2, first.set_user_attr, [HAS_FIRST, True]).start()
    assert not lacks_first(second, seconds=60)
    assert is_begun("s", storage)


# ---- storages -----------------------------------------------------------------------------------------------------


def test_which_storages_machines_can_share() -> None:
    assert [is_shared(url) for url in ("sqlite:///a.db", "postgresql://h/n", "grpc://h:1", "journal:///f")] == [
        False, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody:hunter2secret@127.0.0.1:1/none",
        "grpc://127.0.0.1:1",
        "journal:///nowhere/at/all/x.log",
        "sqlite:////nowhere/at/all/x.db",
    ],
)
def test_a_storage_that_is_not_there_is_a_message(
    url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("da6401.study.storage.OPENING_SECONDS", 0.5)
    monkeypatch.setattr("da6401.study.storage.PROXY_SECONDS", 0.5)
    assert main([*SWEEP, "optimizer.lr=choice(0.1,0.2)", f"hydra.sweeper.storage={url}"]) == 2
    message = capfd.readouterr().err
    assert "hydra.sweeper.storage: the study cannot be opened" in message
    assert "hunter2secret" not in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "reason",
    [
        'connection to server at "h", port 1 failed: Connection refused',
        "connection to server failed: FATAL:  the database system is starting up",
        "connection to server failed: FATAL:  the database system is not yet accepting connections",
        "consuming input failed: server closed the connection unexpectedly",
        "terminating connection due to administrator command",
    ],
)
@pytest.mark.parametrize("in_a_commit", [False, True])
def test_a_server_that_goes_away_while_it_is_opened_is_tried_again(
    reason: str, in_a_commit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, reasons = optuna.storages.InMemoryStorage(), [reason, reason]

    def flaky(address: str) -> BaseStorage:
        if reasons:
            away = ConnectionError(reasons.pop())
            if in_a_commit:
                raise optuna.exceptions.StorageInternalError("An exception is raised during the commit.") from away
            raise away
        return inner

    monkeypatch.setattr("da6401.study.storage._open", flaky)
    storage = open_storage("postgresql://h/name", minutes=1)
    assert storage.get_all_studies() == []
    assert reasons == []


def retrying_with_a_file(folder: Path) -> BaseStorage:
    return RetryingStorage(optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db"), 60)


@pytest.mark.parametrize(
    "storage",
    [
        lambda folder: optuna.storages.get_storage(f"sqlite:///{folder}/study.db"),
        retrying_with_a_file,
        lambda folder: JournalStorage(JournalFileBackend(str(folder / "study.log"))),
    ],
)
def test_parameters_are_written_at_the_end(storage: Callable[[Path], BaseStorage], tmp_path: Path) -> None:
    study = optuna.create_study(storage=storage(tmp_path), sampler=optuna.samplers.RandomSampler(seed=0))
    draft = Draft(TrialStore(study), study, study.ask().number)
    trial = draft.trial
    lr, units = trial.suggest_float("lr", 1e-4, 1e-1, log=True), trial.suggest_categorical("units", [16, 32])
    assert trial.params == {"lr": lr, "units": units}
    held = optuna.load_study(study_name=study.study_name, storage=storage(tmp_path)).get_trials()
    assert held[0].params == {}
    draft.set("units", trial.distributions["units"], units := 48 - units)
    assert trial.params == {"lr": lr, "units": units}
    draft.write()
    held = optuna.load_study(study_name=study.study_name, storage=storage(tmp_path)).get_trials()
    assert held[0].params == {"lr": lr, "units": units}
    assert held[0].distributions == trial.distributions


def test_of_parameters_that_cannot_all_be_written_none_is(tmp_path: Path) -> None:
    study = optuna.create_study(storage=retrying_with_a_file(tmp_path), sampler=optuna.samplers.RandomSampler(seed=0))
    study.ask({"units": optuna.distributions.CategoricalDistribution([16, 32])})

    def suggest(units: Sequence[int]) -> None:
        draft = Draft(TrialStore(study), study, study.ask().number)
        draft.trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        draft.trial.suggest_categorical("units", units)
        draft.write()

    with pytest.raises(ValueError, match="dynamic value space"):
        suggest([16, 64])  # other choices than the first trial's
    assert [len(trial.params) for trial in study.get_trials()] == [1, 0]


class Flaky(optuna.storages.InMemoryStorage):
    """Away for the first calls of each kind."""

    def __init__(self, away: int, *, seconds: float = 0) -> None:
        super().__init__()
        self.away = away
        self.seconds = seconds  # that each of them takes

    def get_all_studies(self) -> list[optuna.study._frozen.FrozenStudy]:
        from sqlalchemy.exc import OperationalError

        if self.away:
            self.away -= 1
            time.sleep(self.seconds)
            raise optuna.exceptions.StorageInternalError("away") from OperationalError("select", {}, Exception("down"))
        return super().get_all_studies()


def test_a_storage_that_comes_back_is_waited_for() -> None:
    storage = RetryingStorage(Flaky(away=3), seconds=60)
    assert storage.get_all_studies() == []
    assert outages(storage) == 3


def test_one_attempt_that_hangs_is_told_of_like_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("da6401.study.retrying_storage.SILENT_SECONDS", 0.2)
    hangs, quick = Flaky(away=1, seconds=0.3), Flaky(away=1)
    RetryingStorage(quick, seconds=60).get_all_studies()
    assert "does not answer" not in caplog.text
    RetryingStorage(hangs, seconds=60).get_all_studies()
    assert "does not answer" in caplog.text
    assert "answers again" in caplog.text


def test_a_storage_that_stays_away_is_a_message_and_a_wrong_call_is_no_outage() -> None:
    with pytest.raises(UserError, match=r"no answer for .* the same command goes on when it is back"):
        RetryingStorage(Flaky(away=10**6), seconds=0.2).get_all_studies()
    storage = RetryingStorage(Flaky(away=0), seconds=60)
    with pytest.raises(KeyError):
        storage.get_trial(77)
    assert outages(storage) == 0


@needs_postgres
def test_few_connections_and_a_server_that_crashes_in_mid_sweep(postgres: Postgres, tmp_path: Path) -> None:
    found = survive(postgres, tmp_path, trials=30, kill_seconds=3.5, say=lambda text: None)
    assert found["states"] == {"COMPLETE": 30}
    assert found["numbers_are_all"]
    assert found["folders_agree"]
    assert found["kills"] > 0
    assert found["server_restarts"] == 1
    assert found["exit_codes"] == [0] * found["workers"], found["said"]


@needs_postgres
def test_an_outage_loses_no_trial_and_no_report(postgres: Postgres, tmp_path: Path) -> None:
    rates = [number / 20 for number in range(1, 13)]  # so many that a busy machine stops the server before the last
    words = ["train", "--multirun", "study=s", f"optimizer.lr=choice({','.join(map(str, rates))})",
             f"{N}{len(rates)}", f"hydra.sweeper.storage={postgres.url}", "sweep.lease_seconds=1.5"]  # fmt: skip
    workers = [start_worker(words, place=tmp_path, seconds=1.2, epochs=6) for _ in range(2)]
    wait_until(lambda: list(FOLDER.glob("trial-*/result.json")))
    postgres.stop("immediate")
    time.sleep(3.5)  # more than two leases: nobody may take a living worker for dead afterwards
    postgres.start()
    for worker in workers:
        worker.join(90)
        assert worker.exitcode == 0, "\n".join(log.read_text() for log in tmp_path.glob("*.log"))
    trials = optuna.load_study(study_name="s", storage=open_storage(postgres.url, minutes=1)).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * len(rates)
    assert [trial.user_attrs[ATTEMPTS] for trial in trials] == [1] * len(rates)
    for trial in trials:
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
    log = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert "does not answer" in log
    assert "answers again" in log


@needs_postgres
def test_real_trainings_by_two_workers_one_killed_end_with_the_weights_of_one_that_never_stopped(
    postgres: Postgres, tmp_path: Path
) -> None:
    words = (
        *SWEEP, "trainer.epochs=12", "trainer.checkpoint_minutes=0.0001", RATE, f"{N}4", "sweep.keep_checkpoints=100",
        "data.images_per_class=40", f"hydra.sweeper.storage={postgres.url}", "sweep.lease_seconds=2",
    )  # fmt: skip
    storage = open_storage(postgres.url, minutes=1)
    with begun(words, cwd=tmp_path) as first, begun(words, cwd=tmp_path) as second:
        deep = wait_until(lambda: _deep(storage))  # both work, and one is in the middle of a trial
        victim, other = (first, second) if deep[0].user_attrs[OWNER].endswith(_lock(first)) else (second, first)
        victim.process.kill()
        code, _, errors = other.end(120)
    assert code == 0, errors
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    (resumed,) = [trial for trial in trials if trial.user_attrs[ATTEMPTS] == 2]
    again = run(saved_config(FOLDER / f"trial-{resumed.number}" / "config.yaml"), tmp_path / "again")
    assert again.weights_sha256 == read_result(FOLDER / f"trial-{resumed.number}").weights_sha256
    assert resumed.number == deep[0].number


def _deep(storage: BaseStorage) -> list[FrozenTrial]:
    """The running trials beyond their third epoch, if two workers run trials."""
    with contextlib.suppress(KeyError):  # the study has not been made yet
        running = optuna.load_study(study_name="s", storage=storage).get_trials(states=(TrialState.RUNNING,))
        if len({trial.user_attrs.get(OWNER) for trial in running}) == 2:
            return [trial for trial in running if len(trial.intermediate_values) > 3]
    return []


def _lock(worker: Command) -> str:
    """The name of the lease that a process holds (Linux)."""
    held = []
    for file in Path(f"/proc/{worker.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.append(os.readlink(file))
    (lease,) = [
        Path(path).stem for path in held if path.endswith(".lock") and "turn" not in path and ".workers" in path
    ]
    return lease


def test_a_machine_without_the_disk_starts_a_dead_workers_trial_anew(tmp_path: Path) -> None:
    url = f"journal://{tmp_path}/study.log"
    words = [
        "train", "--multirun", "study=s", "optimizer.lr=choice(0.1,0.2,0.3)", "hydra.sweeper.n_trials=3",
        f"hydra.sweeper.storage={url}", "sweep.lease_seconds=1",
    ]  # fmt: skip
    places = [tmp_path / name for name in ("here", "there")]
    for place in places:
        place.mkdir()
    first = start_worker(words, place=places[0], seconds=60.0, epochs=60)
    wait_until((places[0] / FOLDER / ".workers").exists)
    study = optuna.load_study(study_name="s", storage=open_storage(url, minutes=1))
    wait_until(lambda: any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)))
    first.kill()
    second = start_worker(words, place=places[1], seconds=0.2, epochs=2)
    second.join(60)
    assert second.exitcode == 0
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    results = sorted(path.parent.name for path in places[1].glob("outputs/sweeps/s/trial-*/result.json"))
    assert results == ["trial-0", "trial-1", "trial-2"]
    assert study.trials[0].user_attrs[ATTEMPTS] == 2
    assert owner_of(TrialStore(study), 0) is None


def test_a_worker_whose_lock_is_held_on_this_machine_is_alive_though_its_heart_is_slow(tmp_path: Path) -> None:
    study = opened(f"journal://{tmp_path}/study.log")
    slow, other = machine(study, tmp_path), machine(study, tmp_path)
    claimed = slow.claim(total=1)
    assert claimed is not None
    die(slow)  # no heartbeat any more, but the process is there
    time.sleep(2 * LEASE)
    assert other.claim(total=1) is None
    assert isinstance(slow.lock, FileLock)
    slow.lock.release()
    assert other.claim(total=1) is not None  # at once: its lock says it
    other.close()  # its heart would beat on in a folder that is gone
