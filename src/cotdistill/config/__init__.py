"""Define the settings of an experiment as typed models, and name a fault in one line."""
