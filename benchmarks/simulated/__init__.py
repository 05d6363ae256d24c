"""Simulated experiments, a module a question; `benchmarks/simulate_statistics.py` runs them."""
