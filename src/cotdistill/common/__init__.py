"""Errors, files, seeds, registries, fingerprints of code and stop requests: what every package uses."""
