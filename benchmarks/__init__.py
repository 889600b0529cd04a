"""Speed and memory, side by side with TRL: `make bench` writes `docs/benchmarks.md`.

Read in this order: `workloads` (what is measured), `ours` and `theirs` (the two sides), `measure` (one workload, alternating, in a
process of its own), `memory`, `growth`, `embedded`, `floors` (what the machine could do), `write` (the page), `run` (the command).
"""
