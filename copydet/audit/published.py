"""The numbers that others publish, by their names, so that an audit can stand beside them."""

import numpy as np

from copydet.audit.replication import Found
from copydet.audit.summary import Numbers, floats

_PERCENTILES = (75, 90, 95)


def dcr_numbers(found: Found) -> Numbers:
    """What the code of Somepalli et al. 2023 (repository DCR, diff_retrieval.py) reports: `sim_` of each generation's
    best similarity, `bg_` of each training image's second best among the training images, itself being the first.

    Here the latter are a sample (chance.SAMPLE), and bg_gt_05pc is added. Repeats in the training set count as others,
    which raises the background; audit.json's `chance` leaves them out.
    """
    generated = floats(found.rows, "nearest_similarity")
    numbers: Numbers = {}
    for name, values in (("sim", generated[~np.isnan(generated)]), ("bg", found.chance.second)):
        if len(values):
            numbers |= {f"{name}_mean": float(values.mean()), f"{name}_std": float(values.std())}
            numbers |= {f"{name}_{each}pc": float(np.percentile(values, each)) for each in _PERCENTILES}
            numbers[f"{name}_gt_05pc"] = float((values > 0.5).mean())
    return numbers
