"""Views by a Ray cluster: Ray Data shares the work out, the augmenter does it.

The driver plans, as a run on one machine does, and hands what the store lacks to pools of actors
(``pipeline.py``). An actor holds an ordinary augmenter on the same store (``actors.py``): what it
makes lies under the keys that the driver planned, so the driver finds it there as if it had made
it itself. Nothing but rows that name images and questions (``rows.py``) goes through Ray.
"""

from hb_tta.cluster.actors import Job
from hb_tta.cluster.pipeline import Pools, connected, make_on_ray
from hb_tta.cluster.places import Place
from hb_tta.cluster.pool import Pool
from hb_tta.cluster.rows import Asked

__all__ = ["Asked", "Job", "Place", "Pool", "Pools", "connected", "make_on_ray"]
