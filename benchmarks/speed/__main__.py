"""``python -m benchmarks.speed``."""

from benchmarks.speed.command import main

if __name__ == "__main__":
    main()
