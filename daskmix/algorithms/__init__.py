"""What to ask of the rows, and what to make of the answer: algorithms without rows, engines or clocks."""
