"""Numbers and words from the tables: intervals, tests, evidence, comparison and verdict."""
