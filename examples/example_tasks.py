"""Functions for examples/worker.toml: what an RQ application has anyway."""


def greet(name):
    return f"Hello, {name}"


def import_rows(calls):
    """For many jobs at once: see docs/aggregation.md."""
    rows = [dict(zip(("name", "amount"), args)) for args, kwargs in calls]
    return [row if row["amount"] >= 0 else ValueError(f"{row['name']}: a negative amount") for row in rows]
