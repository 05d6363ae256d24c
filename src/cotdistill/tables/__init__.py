"""From run folders to the tables of an experiment, and reading them back."""
