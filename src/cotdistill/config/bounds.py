"""Name the largest and smallest numbers that settings may have, and why.

A bound is what a library, a file format or Slurm can hold, or far beyond what any experiment has used. What a
machine has is no bound of a setting: `runs.limits` holds a run against the machine that it is to run on.
"""

from __future__ import annotations

SEED = 2**63 - 1
"""a seed is a column of 64-bit integers in Parquet and in SQLite"""
STEPS = 10_000_000
"""a thousand times the published number; also of what is counted in steps"""
LOGGED_STEPS = 100_000
"""steps between lines of a history: the numbers of each are held in memory until then"""
BATCH = 65_536
"""examples passed at once: a thousand times the published number"""
TOKENS = 65_536
"""tokens of one sequence: 64 times the published number; attention grows with its square"""
SMALLEST, LARGEST = 1e-37, 3.4e38
"""what float32 holds of a factor, without losing digits"""
MINUTES = 366 * 24 * 60
"""Slurm's longest time limit is a year"""
PROCESSES = 1_024
"""of one job; also threads of one process: more cores than a machine has"""
MEGABYTES = 100_000_000
"""memory of one job: more than a machine has, and three attempts' multiples still fit Slurm's field"""
BINS = 10_000
"""of confidences: about the examples of the largest test set, so that further ones are empty"""
LEAST_MEASURED, MEASURED = 256, 100_000
"""examples that the predictability of states is measured on: with fewer, what a critic finds tells how many
there were; the representations of all are held in memory"""
REQUESTS = 1_000_000
"""that a judge is sent, or examples that it rates"""
ANSWER_TOKENS = 1_000_000
"""of a judge's answer: more than any model writes"""
REQUEST_SECONDS = 86_400.0
"""that a request may take: a day; the system's timers hold no more than some 10^9"""
RETRIES = 100
"""of one request: with its pauses of up to a minute, hours"""
WIDTH = 65_536
"""of a student from scratch: d_model, d_ff, d_kv; six times that of the largest T5, whose d_model is 4,096"""
HEADS = 1_024
"""attention heads of a student from scratch: eight times those of the largest T5"""
LAYERS = 512
"""of a student from scratch: twenty times those of the largest T5"""
DROPOUT = 0.95
"""what is kept is divided by 1 - dropout, which float32 rounds to 0 near 1"""
VOCABULARY = 1_000_000
"""pieces of a tokenizer: four times those of the largest that are in use"""
RUNS = 20_000
"""of one grid: Snakemake plans some hundred jobs a second, and a report that nobody can read has no use"""
