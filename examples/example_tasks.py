"""Functions for examples/worker.toml: what an RQ application has anyway."""


def greet(name):
    return f"Hello, {name}"
