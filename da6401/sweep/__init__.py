"""A sweep: Hydra's sweeper, the workers that run its trials, and its results.

In the order of a sweep:

- the start: plugin, scheduler, prepare (open_study, same_space, preflight, samplers, pruners), worker_pool;
- each trial: run_trials, leases, suggest, sweep_folder, jobs, trial, trial_timeout, failures,
  checkpoint_retention;
- the end: confirm, summary, curve.

Beside it: dry_run (sweep.dry_run), and proxy, a program between many workers and their database.
"""
