"""From samples to batches: the training budget, samplers, loaders, and the datasets that workers read from."""
