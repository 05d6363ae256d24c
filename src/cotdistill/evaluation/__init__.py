"""Evaluation: greedy generation, scoring, and the two protocols (`strict` and `published`)."""
