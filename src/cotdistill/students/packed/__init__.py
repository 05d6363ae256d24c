"""The packed engine: T5 on tokens of all sequences end to end, without work on padding."""
