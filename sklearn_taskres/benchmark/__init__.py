"""Measurements that anyone can repeat: ``python -m sklearn_taskres.benchmark encode``."""
