"""What shows that the content of a file, or of any file in a folder, has changed: sizes, times, inodes."""

from __future__ import annotations

import hashlib
import os
import stat

Stamp = list[int | str]  # size, modification time, status-change time, inode


def stamp_of(path: str) -> Stamp | None:
    """The status of a file; None: it is not there. The status-change time cannot be set back, as the other can.

    Of a folder: the size of all its files, their newest times, and a hash over the name and status of each.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        below = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
        found = [(file, os.stat(file)) for file in below if os.path.isfile(file)]
    except OSError:
        return None
    total = hashlib.sha256()
    for file, each in found:
        total.update(f"{file!r} {each.st_size} {each.st_mtime_ns} {each.st_ctime_ns} {each.st_ino}\n".encode())
    changed = max((each.st_mtime_ns for _, each in found), default=status.st_mtime_ns)
    touched = max((each.st_ctime_ns for _, each in found), default=status.st_ctime_ns)
    return [sum(each.st_size for _, each in found), changed, touched, total.hexdigest()]
