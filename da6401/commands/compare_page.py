"""`da6401 compare --page FILE`: runs and sweeps side by side as a page, with the images on which two disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from da6401.errors import UserError
from da6401.redact import safe
from da6401.report.collect import read_sweep, reads_as_sweep
from da6401.report.compared import compared_sections, short_names
from da6401.report.contents import made
from da6401.report.disagreements import Pictures, data_url, pictures_of_files
from da6401.report.page import PAGE, page
from da6401.report.run_record import RunRecord, read_run
from da6401.runs.atomic_files import write_text
from da6401.runs.run_folder import CONFIG

COMPARISON = dataclasses.replace(PAGE, option="--page FILE")


def write_comparison(folders: Sequence[Path], out: Path) -> None:
    """Write the page.

    Args:
        folders: of runs, and of sweeps.

    Raises:
        RunError: a folder that cannot be read. WriteError: the page cannot be written.
    """
    read = [
        read_sweep(folder, None) if reads_as_sweep(folder, None) else read_run(folder, predictions=True)
        for folder in folders
    ]
    sections = compared_sections(read, _pictures)
    parts = [{"id": "compared", "title": "", "sections": sections}]
    title = f"Compared: {', '.join(short_names(folders))}"
    with COMPARISON.writing():
        write_text(out, page({"title": title, "parts": parts, "made": made()}, live=False))
    print(f"compare: {safe(out)}")


def _pictures(run: RunRecord) -> Pictures:
    """The pictures of a run's validation images: its files, else what its data source makes of them."""
    of_files = pictures_of_files(run.config)

    def read(names: Sequence[str]) -> Mapping[str, str]:
        return of_files(names) or _of_source(run, names)

    return read


def _of_source(run: RunRecord, names: Sequence[str]) -> Mapping[str, str]:
    """Pictures of images that are no files; {} where they are files that are gone, or cannot be read."""
    from PIL import Image

    from da6401.config.compose import saved_config
    from da6401.data.sources import load_training_data, reads_files

    try:
        cfg = saved_config(run.folder / CONFIG)
        if reads_files(cfg.data):
            return {}
        images = load_training_data(cfg.data).validation
    except UserError:  # the plugin of its source is not named, or an older version's config: the page has a table
        return {}
    row = {name: index for index, name in enumerate(images.names)}
    return {name: data_url(Image.fromarray(images.picture(row[name]))) for name in names if name in row}
