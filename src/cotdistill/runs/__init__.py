"""The grid and the folder of each run: its paths, documents, state, outputs and lease."""
