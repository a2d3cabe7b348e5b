"""Stages of ``benchmarks/on_gpu.py``, each a module with ``run(options) -> dict``, and what they share."""
