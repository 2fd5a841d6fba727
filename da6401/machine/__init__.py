"""What a process finds around it: processor cores, memory, and a terminal or a pipe."""
