"""Optuna studies without Hydra: storage, the objective and which trial is best."""
