"""Where the work is done: engines see a reduction and rows, never a model."""
