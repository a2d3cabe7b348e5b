"""What ``benchmarks/attack.py`` and ``tests/attack`` do to the package."""
