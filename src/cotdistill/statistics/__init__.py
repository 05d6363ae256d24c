"""Statistics of paired comparisons: pure functions over NumPy arrays; what is random takes a Generator."""
