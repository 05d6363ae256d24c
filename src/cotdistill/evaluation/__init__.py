"""Evaluation of stored answers: accuracy by two protocols, calibration, rationale quality, an LLM judge."""
