"""The commands beside train: evaluate and predict, reproduce, compare, export, explain, data, shell completion."""
