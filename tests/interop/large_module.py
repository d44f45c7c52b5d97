"""Preloaded by test_executors.py: what a job's process has before it does anything."""

ballast = b"x" * (300 << 20)
