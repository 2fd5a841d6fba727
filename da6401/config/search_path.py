"""Where Hydra finds the YAML files of a command, and the options of the config groups there.

Ours come first, then the user's --config-dir, then hydra.searchpath: Hydra takes a name where it finds it first.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from da6401.config.hydra_internals import hydra_config
from da6401.config.metrics import directions_of, names_of
from da6401.config.options import config_nodes
from da6401.config.own_keys import OWN
from da6401.config.schema import PretrainedConfig
from da6401.config.validate import value_problems
from da6401.config.yaml_files import read_old_names
from da6401.errors import ConfigError, UserError
from da6401.registry import BACKBONES, LIBRARIES, METRICS

CONFIG_NAME = "config"
NO_CHOICE = ("hydra", "schema")  # Hydra's own groups, and the nodes that ours are made of


def conf_dir() -> Path:
    """The folder of our YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "conf", package.parent / "conf"
    return inside if inside.is_dir() else beside


def register_schema() -> None:
    """Register the schema with Hydra as plain nodes: Hydra then merges any key, and our check reports all mistakes."""
    read_old_names()
    if not OmegaConf.has_resolver("stages"):
        OmegaConf.register_resolver("stages", _stages)
        OmegaConf.register_resolver("directions", _directions)
    store, nodes = ConfigStore.instance(), config_nodes()
    for path in _stored.keys() - nodes.keys():  # of a plugin that is no longer loaded
        _folder(store, path).pop(f"{path.rpartition('/')[2]}.yaml", None)
        del _stored[path]
    for path, node in nodes.items():  # a command asks several times, and names may have been registered since
        group, _, name = path.rpartition("/")
        if f"{name}.yaml" not in _folder(store, path) or _stored.get(path) != node:
            store.store(group=group or None, name=name, node=node, provider="da6401", replace=True)
            _stored[path] = node


_stored: dict[str, Any] = {}  # what this process has given Hydra


def _folder(store: ConfigStore, path: str) -> dict[str, Any]:
    node: dict[str, Any] = store.repo
    for part in path.split("/")[:-1]:
        node = node.get(part, {})
    return node


def _stages(model: str, less: int = 0, *, _root_: Any) -> int:
    """The YAML resolver ``${stages:resnet18}``, or ``${stages:resnet18,3}`` for all but three: a freeze depth."""
    if model in LIBRARIES:
        arch = OmegaConf.select(_root_, "model.arch", default="")
        try:
            return max(0, len(LIBRARIES[model].backbone(str(arch)).stages) - less)
        except UserError:
            return 0  # the check tells it
    own = OWN["model"].get(model)
    if own is not None and issubclass(own, PretrainedConfig):
        return max(0, len(_with_own_keys(own, model, _root_).backbone.stages) - less)
    return max(0, len(BACKBONES[model].stages) - less) if model in BACKBONES else 0


def _with_own_keys(schema: type[PretrainedConfig], model: str, root: Any) -> PretrainedConfig:
    """The configuration of a plugin's backbone, whose stages may depend on its own keys; the others are the defaults.

    A wrong value counts as the default, too: the check tells it.
    """
    if OmegaConf.select(root, "model.name", default="") != model:
        return schema()
    own = {each.name for each in dataclasses.fields(schema)} - {
        each.name for each in dataclasses.fields(PretrainedConfig)
    }
    values = {name: OmegaConf.select(root, f"model.{name}") for name in own}
    return schema(**{name: value for name, value in values.items() if not value_problems(f"model.{name}", value)})


def _directions(objectives: object) -> str | list[str]:
    """The YAML resolver ``${directions:${sweep.objectives}}``: one word, or a list of them for several."""
    words = directions_of(name for name in names_of(objectives) if name in METRICS)
    return words[0] if len(words) == 1 else words


@dataclass(frozen=True)
class SearchPath:
    """The flags of a command that say where its YAML files are: --config-dir, --config-path and --config-name."""

    config_dir: str | None = None
    config_path: str | None = None
    config_name: str | None = None

    @property
    def primary(self) -> str:
        """The name of the primary config."""
        return self.config_name or CONFIG_NAME

    @property
    def folders(self) -> list[Path]:
        """The folders in the order of the search, without those of hydra.searchpath.

        Raises:
            ConfigError: one of them does not exist.
        """
        main = Path(self.config_path).absolute() if self.config_path else conf_dir()
        folders = [main, *([Path(self.config_dir).absolute()] if self.config_dir else [])]
        flags = ("--config-path", "--config-dir")
        missing = [
            f"{flag} {place}: no such folder" for flag, place in zip(flags, folders, strict=False) if not place.is_dir()
        ]
        if missing:
            raise ConfigError(missing)
        return folders

    @property
    def flags(self) -> list[str]:
        """As the words of a command."""
        given = {"--config-dir": self.config_dir, "--config-path": self.config_path, "--config-name": self.config_name}
        return [word for flag, value in given.items() if value is not None for word in (flag, value)]

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration as Hydra composes it, with its own node.

        Raises:
            HydraException, OmegaConfBaseException: it cannot be composed.
        """
        with self._open():
            return compose(self.primary, list(overrides), return_hydra_config=True)

    def options(self, overrides: Sequence[str] = ()) -> dict[str, list[str]]:
        """Each config group with the names of its options, those in subfolders (lab/x) last."""
        more = [text for text in overrides if text.startswith("hydra.searchpath")]
        own = self.config_name or self.config_path  # the user's own primary config may name more folders, too
        with self._open():
            return group_options(GlobalHydra.instance().config_loader(), (self.primary, more) if more or own else ())

    def is_multirun(self, overrides: Sequence[str], *, flag: bool) -> bool:
        """Whether a command runs a sweep: by --multirun, or by hydra.mode on the command line or in the primary config.

        Raises:
            ConfigError: hydra.mode is neither RUN nor MULTIRUN.
        """
        if flag or not (self.config_name or self.config_path or any("hydra" in text for text in overrides)):
            return flag
        with self._open():
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None, "it has just been opened"
            try:
                parsed = OverridesParser.create().parse_overrides(list(overrides))
            except HydraException:
                return flag  # the check of the whole command reports what is wrong with them
            try:
                return hydra.get_mode(self.primary, list(overrides), parsed) is RunMode.MULTIRUN
            except HydraException as error:
                raise ConfigError([str(error).strip().partition("\n")[0]]) from error

    @contextmanager
    def _open(self) -> Iterator[None]:
        register_schema()
        GlobalHydra.instance().clear()
        with warnings.catch_warnings(), initialize_config_search_path([f"file://{place}" for place in self.folders]):
            warnings.filterwarnings("error", "provider=.* is not available")  # a folder of hydra.searchpath
            try:
                yield
            except UserWarning as error:
                raise ConfigError([f"hydra.searchpath: {error}"]) from error


def group_options(loader: ConfigLoader, searched: tuple[str, list[str]] | tuple[()] = ()) -> dict[str, list[str]]:
    """Each config group with the names of its options, those in subfolders (lab/x) last.

    Args:
        searched: the primary config and the overrides that may name more folders; without them it takes a tenth of the
            time.
    """

    def names(group: str, kind: ObjectType) -> list[str]:
        return sorted(set(loader.get_group_options(group, kind, *searched)))

    def configs(group: str) -> Iterator[str]:
        yield from names(group, ObjectType.CONFIG)
        for inner in names(group, ObjectType.GROUP):
            yield from (f"{inner}/{name}" for name in configs(f"{group}/{inner}"))

    groups = [group for group in names("", ObjectType.GROUP) if group not in NO_CHOICE]
    return {group: list(configs(group)) for group in groups}


def network_of(loader: ConfigLoader, config: DictConfig, option: str) -> str:
    """The name of the network that an option of `model` makes, in a sweep of this configuration."""
    name, given = str(config.hydra.job.config_name), hydra_overrides(config)
    return str(loader.load_configuration(name, [*given, f"model={option}"], RunMode.RUN).model.name)


def hydra_overrides(composed: DictConfig) -> list[str]:
    """The overrides of Hydra's own keys in a command, as typed: they may hold interpolations of a job."""
    given: Any = OmegaConf.to_container(composed.hydra.overrides.hydra, resolve=False)
    return [str(text) for text in given]


def subdir_template(composed: DictConfig) -> str:
    """`hydra.sweep.subdir` as it is written, its interpolations unresolved."""
    sweep = OmegaConf.to_container(composed.hydra.sweep, resolve=False)
    assert isinstance(sweep, dict)
    return str(sweep["subdir"])


def places_of(composed: DictConfig, study: str, *, multirun: bool) -> tuple[str, str]:
    """The folder of the run or of the sweep of this name, and the study's database; "" where only Hydra knows it."""
    with read_write(composed):
        composed.study = study  # which names the folder
    folder = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    return _text_at(composed, folder), _text_at(composed, "hydra.sweeper.storage")


def _text_at(composed: DictConfig, key: str) -> str:
    try:
        return str(OmegaConf.select(composed, key) or "")
    except OmegaConfBaseException:  # of a sweeper whose values are known as it runs
        return ""


@contextmanager
def as_job(composed: DictConfig, *, multirun: bool) -> Iterator[None]:
    """Within the block ``${hydra:...}`` can be resolved as in a first job; that of a sweep has a job.num."""
    job = composed.hydra.job
    number, name = (None, None) if OmegaConf.is_missing(job, "num") else (job.num, job.id)
    with hydra_config(composed):
        if multirun:
            _number(job, 0, "0")
        try:
            yield
        finally:
            if multirun:
                _number(job, number, name)


def _number(job: DictConfig, number: int | None, name: str | None) -> None:
    with read_write(job), open_dict(job):
        job.num, job.id = (MISSING, MISSING) if number is None else (number, name)


def hidden_files(composed: DictConfig) -> list[str]:
    """The problems of chosen files that Hydra does not read, since another of their name comes before them."""
    info = composed.hydra.runtime.config_sources
    folders = [Path(str(source.path)) for source in info if source.schema == "file"]
    chosen = [(str(group), option) for group, option in composed.hydra.runtime.choices.items()]
    typed: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
    for override in OverridesParser.create().parse_overrides([text for text in typed if "=[" in text]):
        if isinstance(value := override.value(), list):  # experiment=[a,b], which Hydra's choices leave out
            chosen += [(override.key_or_group, option) for option in value]
    names = [str(composed.hydra.job.config_name), *(f"{group}/{option}" for group, option in chosen)]
    problems = []
    for name in names:
        found = [file for place in folders if (file := place / f"{name}.yaml").is_file()]
        rule = "which Hydra's search path has first; give it another name"
        contents = [file.read_bytes() for file in found]
        pairs = zip(found, contents, strict=True)
        problems += [f"{file}: is hidden by {found[0]}, {rule}" for file, content in pairs if content != contents[0]]
    return problems
