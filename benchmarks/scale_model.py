"""A model of how figures depend on the number of messages, for ``benchmarks.scale``.

A size in MB is proportional to the messages, plus a constant. A time grows with their logarithm, as
the depth of a B-tree does. Both are fitted by least squares of the relative errors.
"""

import math
from collections.abc import Callable

import numpy as np

FAR = (10_000_000, 1_000_000_000)  # numbers of messages for which figures are expected
Figures = dict[str, dict[str, float]]  # by number of rows, then by name
Model = Callable[[int], float]


def compare(figures: Figures) -> dict[str, dict[str, str]]:
    """By name: the model's value for the last number of rows, its error, and the values beyond.

    The model knows all other numbers of rows. Figures that were not measured at the last, or at
    fewer than two others, are left out.
    """
    *known, last = figures
    compared = {}
    for name, measured in figures[last].items():
        points = {int(at): figures[at][name] for at in known if name in figures[at]}
        if len(points) < 2 or not name.endswith((" ms", " MB")):
            continue
        model = fit(points, linear=name.endswith(" MB"))
        predicted = model(int(last))
        compared[name] = {
            "predicted": f"{predicted:,.2f}",
            "error": f"{predicted / measured - 1:+.0%}",
            **{f"{rows:,}": f"{model(rows):,.4g}" for rows in FAR},
        }
    return compared


def fit(points: dict[int, float], *, linear: bool) -> Model:
    """The model through these values by number of rows, of which there are at least two."""
    scale: Model = float if linear else math.log10
    values = np.array(list(points.values()))
    terms = np.column_stack([np.ones(len(points)), [scale(rows) for rows in points]])
    # Divided by the values, so that a large one does not decide alone.
    (constant, slope), *_ = np.linalg.lstsq(
        terms / values[:, None], np.ones(len(points)), rcond=None
    )
    return lambda rows: float(constant + slope * scale(rows))
