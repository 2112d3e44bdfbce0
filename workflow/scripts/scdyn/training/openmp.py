"""How threads of a torch rule wait for one another; imported before torch, which reads it once.

Threads that wait by spinning take the cores of whatever runs beside them: on two cores shared with
other work, a training step at size S (``benchmarks/sizes.py``) took three to five times as long
with GNU OpenMP's default as with ``passive``. A job on a GPU keeps the default. The environment's
``OMP_WAIT_POLICY`` wins.
"""

import os

from scdyn.machine import runs_on_cpu

if runs_on_cpu():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
