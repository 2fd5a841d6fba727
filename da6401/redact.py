"""Text made safe to show or to store: without control characters and passwords."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

SECRET_VARIABLES = ("WANDB_API_KEY", "PGPASSWORD", "MYSQL_PWD")
SHORTEST = 4  # characters of a secret that is replaced wherever it occurs: "a" would be everywhere
# scheme://user:PASSWORD@host (a password may hold a slash or an @), and ?password=... behind a URL.
IN_ADDRESS = re.compile(r"([A-Za-z][\w.+-]*://[^\s:/@'\"]*:)([^\s'\"]+)(?=@)")
IN_QUERY = re.compile(r"([?&](?:\w*password|passwd|pwd|passphrase|token|api_?key|secret)=)([^&\s'\"]+)", re.IGNORECASE)

_known: set[str] = set()


def remember_secrets(words: Iterable[str]) -> None:
    """Remember the passwords in the URLs of a command line: an error may repeat one without its URL."""
    for word in words:
        for pattern in (IN_ADDRESS, IN_QUERY):
            found = [match.group(2) for match in pattern.finditer(word)]
            _known.update(text for secret in found for text in (secret, unquote(secret)) if len(text) >= SHORTEST)


def redacted(text: str) -> str:
    """The text without passwords of URLs, those of the command line, and the keys that the environment holds."""
    text = IN_QUERY.sub(r"\1***", IN_ADDRESS.sub(r"\1***", text))
    held = {value for name in SECRET_VARIABLES if len(value := os.environ.get(name, "")) >= SHORTEST}
    for secret in sorted(_known | held, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def duration(seconds: float) -> str:
    """Seconds as text, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def printable(text: str) -> str:
    r"""Text that cannot control a terminal: control characters as escapes, such as \x1b; line ends and tabs stay."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


def one_line(text: object) -> str:
    """As printable, line ends and tabs too: a file's name may hold any character."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def listed(names: Sequence[object], *, most: int = 20) -> str:
    """The first names, each on one line, separated by commas; "..." where there are more."""
    return ", ".join([*map(one_line, names[:most]), *(["..."] if len(names) > most else [])])


def safe(text: object) -> str:
    """Text of unknown origin for a message, a table or a log: redacted and printable."""
    return printable(redacted(str(text)))


def is_utf8(text: str) -> bool:
    """Whether a name is valid text: Linux allows any bytes in one, libraries written in C do not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON with letters as they are; what UTF-8 cannot encode, such as the bytes of a file's name, is escaped.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def safe_tree(value: object) -> object:
    """Nested plain values with every text in them redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: safe_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [safe_tree(item) for item in value]
    return value


class SafeFormatter(logging.Formatter):
    """A handler's own formatter, and then nothing secret and no control characters, tracebacks included."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self.inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return safe(self.inner.format(record))


@contextmanager
def safe_logs() -> Iterator[None]:
    """Within the block the present handlers of the root logger write only what is safe."""
    handlers = list(logging.getLogger().handlers)
    before = [handler.formatter for handler in handlers]
    for handler in handlers:
        handler.setFormatter(SafeFormatter(handler.formatter))
    try:
        yield
    finally:
        for handler, formatter in zip(handlers, before, strict=True):
            handler.setFormatter(formatter)
