"""One module for each command beside train: evaluate, predict, reproduce, compare, export, explain, data."""
