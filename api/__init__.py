"""The front door: HTTP in, projections out. It validates, enqueues and reads; no workflow runs in here."""
