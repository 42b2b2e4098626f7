"""Machinery kept up to date by the template; the team's files never need to change it."""

import os

# Threads of scikit-learn's trees spin for a moment and then sleep: on few cores Spark needs them.
# Measured on two: half the time of always sleeping, and no core is held while others wait.
# Read when the library is loaded, so it is set before anything else is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
