"""Where work is done: on Ray, or in this process. It knows nothing of influence.

executor.py     what stages ask for: calls, partitions, trainings
local.py        in this process, one after the other
ray_cluster.py  on Ray: a cluster to work on, single tasks; over it ray_pools.py (pools of actors)
                and ray_training.py (Ray Train)
opening.py      which of the two a job gets
crashes.py      work that kills its worker: trails of tries, rows that are left out

Both give the same bytes. Only the modules called ray_ import Ray.
"""
