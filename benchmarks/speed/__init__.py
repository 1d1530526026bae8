"""Measure RELAX's speed: around its encoder, and against other packages, to equal error.

The others are the official package and Captum's perturbation methods.

Run it from the repository's root; every figure is a ratio of times measured in turn in one
process::

    python -m benchmarks.speed --threads 2 --data FOLDER --out results/speed --page docs/speed.md
    python -m benchmarks.speed --quick    # a minute or two: does it run here?
    python -m benchmarks.speed --only captum memory --repeats 3    # the others stay as in --out

`command` reads the options and runs the sections (`overhead`, `official`, `captum`, `equal_error`,
`memory`, `gpu`), each a generator of `rows.Row`; `record` writes each row to ``results.json`` as it
comes, with the machine's description and every repetition; `page` turns that file into Markdown.
Peers that are not installed are rows with the reason. relax_xai:
``pip install --no-deps relax_xai==0.0.5``.
"""
