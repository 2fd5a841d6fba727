"""A group's option means what it says, in every experiment and every sweep: nothing of another option stays behind."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from da6401.config.command_line import check_command_line
from da6401.config.search_path import CONFIG_NAME, SearchPath, conf_dir, register_schema
from da6401.runs.run_folder import flat
from tests.tiny_runs import compose as typed

ABOVE = ("experiment", "sweep")  # the groups whose options choose options of the others
HYDRAS = "hydra"  # the folder of Hydra's own groups
# What an experiment or a sweep means for whichever option of the group is chosen, and why.
MEANT_FOR_ALL = {
    "experiment=part_b": {
        "model.freeze_depth": "all but the last three stages frozen, of any backbone: that is the experiment",
        "model.backbone_lr_factor": "how fast the stages that are not frozen train, in any backbone",
        "data.image_size": "the size that the backbones were pretrained at, of anybody's images",
    },
    "sweep=head": {
        "model.freeze_depth": "the head alone trains, of any backbone: that is the sweep",
        "data.image_size": "the size that the backbones were pretrained at, of anybody's images",
    },
}
MEANT_FOR_ALL["sweep=tune_a"] = {"trainer.average_end": "what the race may hand over, whatever it trains"}
MEANT_FOR_ALL["sweep=tune_b"] = MEANT_FOR_ALL["sweep=tune_both"] = MEANT_FOR_ALL["sweep=tune_a"] | {
    "data.image_size": "the size at which the first head is quickly there, of anybody's images",
}
MEANT_FOR_ALL["experiment=freeze_curve"] = MEANT_FOR_ALL["sweep=part_b"] = MEANT_FOR_ALL["experiment=part_b"]


OPTIONS = SearchPath().options()
GROUPS = [name for name in OPTIONS if name not in ABOVE]
CHOICES = [f"{group}={option}" for group in ABOVE for option in OPTIONS[group]]


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        tree = OmegaConf.to_container(compose(CONFIG_NAME, list(overrides)), resolve=True)
    assert isinstance(tree, dict)
    return {str(name): value for name, value in tree.items()}


@pytest.mark.parametrize("choice", CHOICES)
def test_an_option_replaces_all_that_an_experiment_or_a_sweep_sets_in_its_group(choice: str) -> None:
    meant = set(MEANT_FOR_ALL.get(choice, {}))
    left = set(meant)
    for number in range(max(len(OPTIONS[group]) for group in GROUPS)):
        chosen = {group: OPTIONS[group][number % len(OPTIONS[group])] for group in GROUPS}
        together = composed(choice, *(f"{group}={option}" for group, option in chosen.items()))
        for group, option in chosen.items():
            alone = flat(composed(f"{group}={option}")[group], f"{group}.")
            found = flat(together[group], f"{group}.")
            differing = {key for key in alone | found if alone.get(key) != found.get(key)}
            assert differing <= meant, f"{group}={option} {choice}"
            left -= differing
    assert not left, f"listed as meant for all, but {choice} does not set it"


def test_there_is_something_to_compare() -> None:
    assert len(CHOICES) >= 7
    assert GROUPS == ["augmentation", "callbacks", "data", "model", "optimizer", "schedule", "tracking", "trainer"]
    assert composed("experiment=part_a")["augmentation"]["crop_scale"] == 0.6
    assert composed("experiment=part_a", "augmentation=none")["augmentation"]["crop_scale"] == 1.0


@pytest.mark.parametrize("experiment", OPTIONS["experiment"])
def test_one_experiment_after_another_leaves_nothing_of_the_first(experiment: str) -> None:
    """A sweep brings an experiment with it (sweep=part_b), and another one on the command line replaces that."""
    by_hand = composed(f"experiment={experiment}")
    for sweep in ("part_a", "part_b", "both"):
        both = composed(f"sweep={sweep}", f"experiment={experiment}")
        assert {group: both[group] for group in GROUPS} == {group: by_hand[group] for group in GROUPS}


def test_the_optimizer_of_an_experiment_gives_way_to_anothers_own_rate() -> None:
    assert typed("experiment=part_a", "optimizer=sgd").optimizer == typed("optimizer=sgd").optimizer
    assert typed("experiment=part_a", "optimizer=sgd", "optimizer.lr=0.5").optimizer.lr == 0.5


def test_a_network_of_part_b_in_the_experiment_of_part_a_is_itself() -> None:
    assert typed("experiment=part_a", "model=resnet18").model == typed("model=resnet18").model


def test_a_search_over_options_is_checked_with_each_of_them() -> None:
    words = ["experiment=part_a", "model=choice(part_a,cnn,resnet18)", "augmentation=choice(none,part_a)"]
    check_command_line(words, config_dir=None, multirun=True)


@pytest.mark.parametrize("folder", sorted((conf_dir() / HYDRAS).iterdir()), ids=lambda folder: folder.name)
def test_hydras_own_groups_are_replaced_whole_too(folder: Path) -> None:
    """hydra/job_logging=disabled has no handler of ours left: a formatter that is gone would end it in a traceback."""
    group = f"{HYDRAS}/{folder.name}"
    for file in sorted((Path(hydra.__file__).parent / "conf" / group).glob("*.yaml")):
        node = SearchPath().compose([f"{group}={file.stem}"]).hydra
        whole = "@package hydra\n" not in file.read_text()  # the other has its keys among those of `hydra`
        found: Any = OmegaConf.to_container(node[folder.name] if whole else node, resolve=False)
        alone: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        wanted = flat(alone)
        assert {key: value for key, value in flat(found).items() if whole or key in wanted} == wanted, file
