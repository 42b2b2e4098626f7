"""Machinery kept up to date by the template; the team's files never need to change it."""

import os

# Threads of scikit-learn's trees wait without spinning: on few cores Spark needs them meanwhile.
# Read when the library is loaded, so it is set before anything else is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
