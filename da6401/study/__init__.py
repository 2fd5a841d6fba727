"""Optuna without Hydra: what a study optimises, holds and keeps; nothing here composes a configuration or trains."""
