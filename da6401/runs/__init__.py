"""Run folders: their files, the lock, predictions, looks at the test split, names of trial folders; no torch."""
