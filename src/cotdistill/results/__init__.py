"""From run folders to one table, and from the table to numbers a person can compare."""
