"""What runs the benchmark: units of work, workers, the store that a stopped run goes on from; tidy
rows leave.
"""
