"""A table of numbers and names as CTGAN is given one, drawn from a seed."""

from __future__ import annotations

import numpy as np

DISCRETE = {"work": 8, "degree": 16, "state": 7, "kin": 6, "sex": 2, "paid": 2}
# of which each has up to 10 modes and a number, as CTGAN reads it, beside the classes; and a condition vector
# of the classes: about as wide as the census table of its own tests
COLUMNS = 3 * 11 + 2 * sum(DISCRETE.values())


def table(rows: int):
    import pandas as pd

    draw = np.random.default_rng(0)
    columns: dict[str, np.ndarray] = {
        "age": draw.gamma(9.0, 4.5, rows).round(),
        "hours": np.where(draw.random(rows) < 0.6, 40.0, draw.normal(38, 12, rows).round()),
        "gain": np.where(draw.random(rows) < 0.9, 0.0, draw.lognormal(8, 1, rows)),
    }
    for name, classes in DISCRETE.items():
        share = draw.dirichlet(np.ones(classes))
        columns[name] = draw.choice([f"{name} {i}" for i in range(classes)], rows, p=share)
    return pd.DataFrame(columns)
