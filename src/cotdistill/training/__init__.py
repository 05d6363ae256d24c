"""Training: one module for every method, student and dataset. `loop.train` reads top to bottom."""
