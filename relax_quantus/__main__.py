"""``python -m relax_quantus``: the same as the command ``relax-quantus``."""

from relax_quantus.cli.main import main

if __name__ == "__main__":
    main()
