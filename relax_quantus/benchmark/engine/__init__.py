"""Run the benchmark: units of work, workers, and the store of what is finished."""
