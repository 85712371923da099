"""From samples to batches: the budget, samplers, loaders, and what a worker does for one sample."""
