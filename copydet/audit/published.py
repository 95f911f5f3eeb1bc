"""The numbers that others publish, by their names, so that an audit can stand beside them."""

import numpy as np

from copydet.audit.replication import Found
from copydet.audit.summary import Numbers, floats

_PERCENTILES = (75, 90, 95)


def dcr_numbers(found: Found) -> Numbers:
    """What the code of Somepalli et al. 2023 (repository DCR, diff_retrieval.py) reports: of each generation's best
    similarity, and (`bg_`) of each training image's second best among the training images, itself being the first.

    Repeats in the training set count as others there, which raises the background; `chance` leaves them out.
    """
    generated = floats(found.rows, "nearest_similarity")
    numbers: Numbers = {}
    for prefix, values in (("", generated[~np.isnan(generated)]), ("bg_", found.chance.second)):
        if len(values):
            numbers |= {f"{prefix}sim_mean": float(values.mean()), f"{prefix}sim_std": float(values.std())}
            numbers |= {f"{prefix}sim_{each}pc": float(np.percentile(values, each)) for each in _PERCENTILES}
            numbers[f"{prefix}sim_gt_05pc"] = float((values > 0.5).mean())
    return numbers
