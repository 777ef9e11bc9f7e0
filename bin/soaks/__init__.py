"""Soaks: much work, and trouble with it, on a service and a database of the soak's own; then the database is asked whether all is well."""
