"""Statistics of a benchmark's tidy rows; the unit is always the source group.

Ninth step of the benchmark's flow, one module a step::

    tidy rows --rows--> checked, oriented rows
    rows --endpoints--> an `Endpoint`: scores by cell, method and evaluator
    an `Endpoint` --intervals, comparisons, ranks, variance, agreement--> numbers
    numbers --summary--> one plain dictionary

Nothing here reads files or knows the engine: a pandas DataFrame enters, frozen dataclasses and
plain numbers leave. Everything random takes a seed. SciPy, statsmodels and scikit-posthocs are
imported when they are used.
"""
