"""How well the states of one of a student's two tasks tell those of the other, on held-out examples.

Not their mutual information: that cannot be estimated from so few samples of so many dimensions. What is
measured bounds it from below, by the logarithm of the candidates at most. Both numbers are of a critic that
is fitted on other examples and is to find each example's partner among CANDIDATES:

- `share`: InfoNCE (van den Oord et al. 2018, equations 4 and 5), as a part of its ceiling, log(CANDIDATES);
- `retrieval`: how often the partner scores highest; by chance 1 / CANDIDATES.

Teacher-forced states of both tasks hold the answer whatever the student has learned. So three controls stand
beside them, computed alike of the same examples (`controls`), and the headline is `excess`.
"""

from __future__ import annotations

import math

CANDIDATES = 64
"""examples among which a partner is to be found, in every estimate: so all have one ceiling and one chance"""
CEILING = math.log(CANDIDATES)
"""most nats that InfoNCE can tell"""
REPRESENTATIONS = {"decoder": "mean decoder states", "output": "pooled output distributions"}
"""what is measured of a task, in words"""
FREE_RUNNING = "free_running"
"""the name before a representation where the targets are what the student itself wrote"""
CONTROLS = {
    "untrained": "the same student before training",
    "same_label": "partners shuffled among examples with one label",
    "shuffled": "all partners shuffled",
}
"""in words"""
EXCESS = "share less the larger of the untrained student's and that of partners shuffled within a label"
"""the headline, in words"""
