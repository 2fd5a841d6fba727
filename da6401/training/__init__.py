"""Trains one configuration in its run folder: run, loop, checkpoints, frozen features, device, signals, tracking."""
