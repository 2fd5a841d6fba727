"""What Jupyter shows of runs and sweeps."""
