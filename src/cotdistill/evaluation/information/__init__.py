"""Mutual information between the two tasks of a student, estimated from samples."""
