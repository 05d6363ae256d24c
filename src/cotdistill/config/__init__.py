"""Settings: typed models, reading and checking a config file, and expanding it to a grid of runs."""
