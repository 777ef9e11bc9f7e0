"""What the engine costs and how fast it is, measured beside two yardsticks on one server in one run.

`ceiling` is a bare group commit of the very rows the engine writes; `dbos_peer` is DBOS at its best setting. `bin/bench` runs them.
"""
