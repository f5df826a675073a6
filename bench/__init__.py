"""Benchmarks: one module each, with `run(quick) -> Result`; `scripts/bench` runs them."""
