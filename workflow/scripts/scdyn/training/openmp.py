"""OpenMP's wait policy for torch on the CPU; must be imported before torch, which reads it once.

By default, waiting threads spin and take cores from other processes: on two cores shared with other
work, a training step at size S (``benchmarks/sizes.py``) took three to five times as long with GNU
OpenMP's default as with ``passive``. Jobs on a GPU keep the default. ``OMP_WAIT_POLICY`` of the
environment has precedence.
"""

import os

from scdyn.machine import runs_on_cpu

if runs_on_cpu():
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
