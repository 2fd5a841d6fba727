"""Private names of other packages: if one no longer exists, the message says which version of the package has it.

They are used only in the modules `*_internals.py`; tests/unit/test_internals.py looks each of them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from da6401.errors import UserError


@dataclass(frozen=True)
class Package:
    """A package whose private names are used, and the versions that have them.

    Args:
        package: its name for pip.
        versions: those that da6401 may be installed with, as in pyproject.toml.
        last: the newest version that the tests have run with.
    """

    package: str
    versions: str
    last: str

    @contextmanager
    def names(self) -> Iterator[None]:
        """For a block, or as a decorator, that looks up private names and does little else.

        Raises:
            UserError: a name is not there.
        """
        try:
            yield
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{self.package} {version(self.package)}: {error}. da6401 uses this private name, as no public one "
                f"does the same. It takes {self.package}{self.versions}, and is tested with {self.last}: "
                f"pip install '{self.package}=={self.last}'"
            ) from error
