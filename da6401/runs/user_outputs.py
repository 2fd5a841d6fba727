"""Files that a user names for a command's output: only what such a command wrote is written over."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from da6401.errors import UserError
from da6401.redact import safe
from da6401.runs.atomic_files import name_elsewhere

LOOKED_AT = 65536  # bytes from a file's beginning


@dataclass(frozen=True, kw_only=True)
class OutputKind:
    """What a command writes into the file that an option names."""

    what: str  # "table of da6401 predict"
    option: str  # "--csv FILE"
    begins: re.Pattern[bytes]  # matches the beginning of every such file, those of older versions too

    @property
    def elsewhere(self) -> str:
        """What to do where the file cannot be written."""
        return f"name another file ({self.option})"

    def writing(self) -> AbstractContextManager[None]:
        """Within the block a file of this kind is written; a failed write says what to do."""
        return name_elsewhere(self.elsewhere)

    def check(self, path: Path) -> None:
        """Refuse a file that is there and is none of this kind; an empty one has nothing to lose.

        Raises:
            UserError: it would be lost, or is no file.
        """
        try:
            if not path.exists():
                return
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError:  # whoever writes it gets the same error, and says what to do
            return
        if is_folder:
            raise UserError(f"{safe(path)}: is a folder; {self.elsewhere}")
        if not is_file or not self._is_own(path):
            raise UserError(f"{safe(path)}: is there already, and is no {self.what}; {self.elsewhere}. It is unchanged")

    def _is_own(self, path: Path) -> bool:
        try:
            with open(path, "rb") as file:
                head = file.read(LOOKED_AT)
        except OSError:
            return False
        return not head or self.begins.match(head) is not None
