"""Row constraints of features that published steps compute: no row can break them."""

import numpy as np

from sealserve.he.row_constraints import Norm, RowConstraints
from sealserve.steps.ranges import GroupKind, Ranges


def step_constraints(features: Ranges) -> RowConstraints:
    """Return the exclusive groups and the norms of features, which no client has to check.

    A feature is in one group or norm at most: groups come first.

    Args:
        features: what the steps tell of them.
    """
    count = len(features.low)
    group, exactly_one, norms = np.zeros(count, np.int64), list[bool](), list[Norm]()
    is_flag = features.is_integral & (features.low == 0) & (features.high == 1)
    for found in features.groups:
        is_exclusive = found.kind is not GroupKind.NORM
        if is_exclusive and is_flag[found.members].all() and not group[found.members].any():
            exactly_one.append(found.kind is GroupKind.EXACTLY_ONE)
            group[found.members] = len(exactly_one)
    is_named = group > 0
    has_zero = np.isfinite(features.low) & np.isfinite(features.high) & (features.low <= 0) & (features.high >= 0)
    for found in features.groups:
        members = found.members[~is_named[found.members] & has_zero[found.members]]
        if found.kind is GroupKind.NORM and len(members):
            norms.append(Norm(members, 1.0))
            is_named[members] = True
    return RowConstraints.of(count, group, exactly_one, is_checked=False, norms=norms)
