"""The packed engine: a T5 that computes on the tokens of all sequences end to end, without padding."""
