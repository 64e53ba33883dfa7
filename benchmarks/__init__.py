"""What daskmix costs, as ratios to a peer or to a bound measured in the same run: `python -m benchmarks`.

cases     what is fitted: method, rows, features, k, dtype; its flops, its rows, its start
peers     the same method by others, and threads shared out alike; spark: the one that needs a session
timing    turns, medians, seconds per iteration, seconds per pass
ceiling   how fast this machine multiplies matrices
storage   the same rows as a compressed store and as a memory map
report    tables, requirements, the page

grid, named, restarts, stores, scaling, fits, reads, family: the parts of a run, each a function from settings to a
section

simulate  `python -m benchmarks.simulate`: how far a pass scales, on paper and with workers that have nothing to do
costs     what a pass costs, in closed form; constants: its constants, measured; nothing: questions without work
pages     the page about scale
"""
