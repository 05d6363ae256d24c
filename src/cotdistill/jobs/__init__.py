"""Do what one job of the workflow does: prepare, train, answer, evaluate, as a guest of the machine."""
