"""`da6401 serve`: a model behind HTTP. What may enter: requests, their limits, batches, counters and the page."""
