"""Checks of Hydra's own keys and groups in a composed command: values that would fail or have no effect."""

from __future__ import annotations

from omegaconf import DictConfig

from da6401.config.search_path import hidden_files, subdir_template
from da6401.runs.trial_folders import template_problems

LAUNCHER_EXTRAS = {"joblib": "joblib", "ray": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}
REFUSED_LAUNCHERS = {
    "ray_aws": "its machines have neither this program nor these files; start a Ray cluster that has them, and take "
    "hydra/launcher=ray hydra.launcher.ray.init.address=ray://HEAD:10001 (docs/scale.md)",
}


def hydra_key_problems(composed: DictConfig, *, multirun: bool) -> list[str]:
    """Files that Hydra does not read, folders that trials would share, keys and launchers that cannot work."""
    problems = hidden_files(composed)
    if composed.hydra.output_subdir not in (".hydra", None):
        problems.append(f"hydra.output_subdir={composed.hydra.output_subdir}: a run writes .hydra/; leave it out")
    if multirun:
        problems += template_problems(subdir_template(composed))
        launcher = str(composed.hydra.runtime.choices["hydra/launcher"])
        if launcher in REFUSED_LAUNCHERS:
            problems.append(f"hydra/launcher={launcher}: {REFUSED_LAUNCHERS[launcher]}")
    return problems
