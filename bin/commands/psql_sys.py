"""bin/psql-sys: an SQL shell on the engine's tables, which live in the application's database."""

from bin.psql import become_psql
from bin.wiring import run

if __name__ == "__main__":
    run(become_psql)
