"""Hydra's sweeper, its workers, and the files of a sweep."""
