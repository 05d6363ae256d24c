"""What a person reads of an experiment: tables as text, pages and figures."""
