"""How fast and how small: this package beside the published way. See `python -m benchmarks.speed -h`."""
