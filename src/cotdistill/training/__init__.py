"""Training of one run: the steps, what is logged and saved, and the device. `trainer` reads top to bottom."""
