"""Answers and rationales of a student: generation, option scores, and a journal of finished batches."""
