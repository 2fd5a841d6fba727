"""What libraries compute anew at each call and a process of tests needs once: a sweep takes two thirds of the time."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import omegaconf._utils
import omegaconf.basecontainer
import omegaconf.omegaconf
from alembic.script import ScriptDirectory
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from optuna.storages._rdb.storage import _VersionManager

from da6401.config.search_path import conf_dir

# ---- of OmegaConf: the types of a schema; a class of its own for each file that is read ----
_PLACES: list[tuple[Any, str]] = [
    (omegaconf._utils, "get_type_hints"),
    (omegaconf.omegaconf, "get_yaml_loader"),
    (omegaconf.basecontainer, "get_yaml_loader"),
]
for _module, _name in _PLACES:
    setattr(_module, _name, functools.cache(getattr(_module, _name)))


# ---- of Optuna: all the versions of its tables ----
_scripts: list[ScriptDirectory] = []
_create = _VersionManager._create_alembic_script


def _script(self: _VersionManager) -> ScriptDirectory:
    if not _scripts:
        _scripts.append(_create(self))
    return _scripts[0]


setattr(_VersionManager, "_create_alembic_script", _script)  # noqa: B010 (mypy knows what it replaces)


# ---- of Hydra: the YAML files of the package, some thirty for each configuration, of which a command makes three ----
_read: dict[tuple[str, str], bytes] = {}
_load = ConfigRepository.load_config
_OURS = (str(conf_dir()), "hydra.conf")


def _load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    source = self._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.path not in _OURS:
        return _load(self, config_path)
    key = source.path, config_path
    if key not in _read:
        _read[key] = pickle.dumps(_load(self, config_path))
    result: ConfigResult = pickle.loads(_read[key])
    return result


setattr(ConfigRepository, "load_config", _load_config)  # noqa: B010 (as above)
