"""benchmarks/judges.py and benchmarks/replays.py on tables made by hand, of which every answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.curves import FULL, POOL, RUNS, missing, pack, pool, read_table, seconds_of_epoch, train, unpack
from benchmarks.judges import final_of, judged, rows
from benchmarks.replays import LENGTH, Clock, OverBudgetError, Task, curves_of, page, race, random_search, replay
from da6401.config.domains import Choices, Interval
from da6401.config.schema import CnnConfig, RunConfig, SyntheticConfig, TrainerConfig
from da6401.config.search_space import Parameter, SearchSpace
from da6401.data.sources import load_training_data
from da6401.training.device import restore_torch_settings

IMAGES = 40  # of validation, and as many of test
PARAMETERS = (
    Parameter("optimizer.lr", "optimizer.lr", Interval(1e-3, 1e-1, log=True)),
    Parameter("augmentation.flip", "augmentation.flip", Choices((0.0, 0.5))),
)


def made_table(
    quality: list[float], *, middle: list[float] | None = None, data: str = "made"
) -> Iterator[dict[str, Any]]:
    """A table of configurations with these accuracies in the end, and in the middle of their full trainings.

    A shorter complete training ranks as the full one does. Configuration i costs as much as every other.
    """
    for number, final in enumerate(quality):
        for run, kind in RUNS.items():
            own = final - 0.01 * (18 - kind.epochs) - 0.1 * (kind.images < 1)
            early = own if middle is None or run != FULL else middle[number]
            curve = [early] * (kind.epochs - 1) + [own]
            yield {
                "data": data, "config": number, "run": run, "accuracy": curve, "loss": [1 - each for each in curve],
                "averaged": {str(epoch): [final, 1 - final] for epoch in (2, 6, 9)}, "test": final, "tests": IMAGES,
                "losses": pack(np.full(IMAGES, 1 - own)), "macs": 1000 * (1 + number % 2), "images": 10,
                "seconds": 0.5 + 0.5 * (1 + number % 2), "params": 1,
                "point": {"optimizer.lr": 10.0 ** (-3 + 2 * number / 20), "augmentation.flip": 0.0},
            }  # fmt: skip


QUALITY = [0.60, 0.50, 0.70, 0.55, 0.80, 0.65, 0.90, 0.75]


def test_averaging_only_watches_a_training_and_follows_its_weights() -> None:
    cfg = RunConfig(
        model=CnnConfig(filters=4, blocks=2), data=SyntheticConfig(classes=2, images_per_class=40, image_size=16),
        trainer=TrainerConfig(epochs=6, batch_size=8, threads=1, progress=False),
    )  # fmt: skip
    data = load_training_data(cfg.data)
    with restore_torch_settings():
        watched, plain = (train(cfg, data, data.validation, averaged=each) for each in (True, False))
    averaged = watched.pop("averaged")
    assert list(averaged) == ["2", "6"]
    assert averaged["6"][1] == pytest.approx(watched["loss"][-1], abs=0.1)
    assert watched["loss"][-1] < math.log(2) / 2
    assert len(plain["accuracy"]) == len(plain["loss"]) == 6
    assert watched.pop("seconds") > 0
    assert {key: value for key, value in plain.items() if key != "seconds"} == watched
    assert unpack(plain["losses"]).mean() == pytest.approx(plain["loss"][-1], rel=0.02)


def test_the_pool_is_the_same_each_time_and_begins_with_the_recipe() -> None:
    space = SearchSpace(PARAMETERS, {}, {"optimizer.lr": 0.004, "augmentation.flip": 0.5})
    points = pool(space)
    assert len(points) == POOL
    assert points[0] == {"optimizer.lr": 0.004, "augmentation.flip": 0.5}
    assert pool(space) == points


def test_a_table_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    whole = list(made_table([0.5, 0.6]))
    points, words = [whole[0]["point"], whole[-1]["point"]], [("data.root=/images/made",)]
    path = tmp_path / "table.jsonl"
    texts = [json.dumps(line) for line in whole]
    path.write_text("\n".join([*texts[:4], texts[3], texts[5], texts[6][:50]]))
    table = read_table(path)
    assert len(table) == 5
    left = [(each.number, each.run) for each in missing(words, points, table)]
    assert left == [(1, "third"), (1, "ninth"), (0, "smaller images"), (1, "fewer images"), (1, "smaller images")]
    with pytest.raises(SystemExit, match="another one now"):
        list(missing(words, points[::-1], table))


def test_losses_are_kept_to_a_hundredth_or_so() -> None:
    losses = np.array([0.0, 0.01, 0.3, 2.3, 13.8, 40.0])
    assert unpack(pack(losses)) == pytest.approx([0.0, 0.01, 0.3, 2.3, 13.8, 16.0], rel=0.02, abs=0.01)


def test_a_judge_that_ranks_as_the_end_does_is_perfect() -> None:
    final = np.array(QUALITY)
    found = judged(2 * final - 3, final, cost=0.5)
    assert found.spearman == pytest.approx(1)
    assert found.regret == 0
    assert found.at_cost == 0  # four full trainings judge all eight
    dear = judged(final, final, cost=1.0)
    means = [max(final[list(each)]) for each in _subsets(8, 4)]
    assert dear.at_cost == pytest.approx(100 * (0.9 - np.mean(means)), abs=0.5)


def _subsets(count: int, size: int) -> list[tuple[int, ...]]:
    from itertools import combinations

    return list(combinations(range(count), size))


def test_a_judge_that_ranks_the_other_way_round_chooses_the_worst() -> None:
    final = np.array(QUALITY)
    found = judged(-final, final, cost=1.0)
    assert found.spearman == pytest.approx(-1)
    assert found.regret == pytest.approx(40)


def test_the_page_says_which_judge_is_which() -> None:
    table = list(made_table(QUALITY, middle=[1 - each for each in QUALITY]))
    cells = {line.split(" | ")[0].removeprefix("| "): line for line in rows(table)}
    assert "-1.00 ±" in cells["accuracy after 6 of 18 epochs"]
    assert "1.00 ±" in cells["complete training, 6 epochs, loss"]
    assert "| 0.33 |" in cells["complete training, 6 epochs, loss"]
    assert "1.00 ±" in cells["averaged weights after 9 of 18 epochs, accuracy"]


def test_an_epochs_seconds_come_from_its_arithmetic() -> None:
    fixed, slope = seconds_of_epoch(list(made_table(QUALITY)))
    assert fixed + slope * 1000 * 10 == pytest.approx(1.0)
    assert fixed + slope * 2000 * 10 == pytest.approx(1.5)


def test_final_counts_images_of_both_splits() -> None:
    line = next(made_table([0.5]))
    assert final_of({**line, "test": 1.0, "tests": 3 * IMAGES}) == pytest.approx((0.5 + 3) / 4)


def curves(quality: list[float], **keys: Any) -> Any:
    return curves_of(list(made_table(quality, **keys)), given=3)["made"]


def test_the_clock_pays_new_epochs_alone_and_ends_with_the_budget() -> None:
    clock = Clock(curves(QUALITY), budget=1.0)
    clock.follow(0, 6)
    assert clock.spent == pytest.approx(6 / LENGTH)
    clock.follow(0, 2)
    clock.follow(0, 9)
    assert clock.spent == pytest.approx(9 / LENGTH)
    with pytest.raises(OverBudgetError):
        clock.follow(1, LENGTH)
    assert clock.spent == pytest.approx(1.0)


def test_a_tool_that_asks_for_what_it_knows_comes_to_an_end() -> None:
    def stuck(task: Task, seed: int) -> None:
        while True:
            task.clock.follow(0, 2)

    assert len(replay(stuck, curves(QUALITY), PARAMETERS, 0)) == 24


def test_regret_is_of_the_full_training_of_the_answer() -> None:
    clock = Clock(curves(QUALITY), budget=2.0)
    clock.follow(0, LENGTH)
    clock.choose(4)
    found = clock.regrets()
    assert found[0] == pytest.approx(30)  # the first epoch is over
    assert found[-1] == pytest.approx(10)
    assert Clock(curves(QUALITY)).regrets() == [pytest.approx(40)] * 24


def test_a_point_stands_for_the_nearest_configuration_that_is_left() -> None:
    task = Task(PARAMETERS, Clock(curves(QUALITY)))
    point = {"optimizer.lr": 1e-3, "augmentation.flip": 0.0}
    assert [task.nearest(point), task.nearest(point), task.nearest(point, "mine"), task.nearest(point, "mine")] == [
        0, 1, 2, 2,
    ]  # fmt: skip


def test_the_race_finds_the_best_candidate_and_random_search_in_the_end() -> None:
    table = curves(QUALITY)
    assert replay(race, table, PARAMETERS, 0)[-1] == 0
    assert replay(random_search, table, PARAMETERS, 0)[-1] == 0
    assert (table.given, table.near) == (3, [4, 6])


def test_the_best_search_has_the_best_rank() -> None:
    regrets = {
        "worse": {"a": [[3.0] * 24] * 2, "b": [[1.0] * 24] * 2},
        "better": {"a": [[2.0] * 24] * 2, "b": [[1.0] * 24] * 2},
    }
    lines = page(regrets)
    assert [line.split(" | ")[:2] for line in lines[2:]] == [["| better", "1.25 ± 0.00"], ["| worse", "1.75 ± 0.00"]]
    assert not math.isnan(float(lines[2].split(" | ")[4]))
