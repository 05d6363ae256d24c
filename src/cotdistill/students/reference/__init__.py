"""The reference engine: transformers' own forward pass and generation, on padded batches, for any of its
encoder-decoders. Read `passes` first (the forward pass, cut at the output layer), then `learning`."""
