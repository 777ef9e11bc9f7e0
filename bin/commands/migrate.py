"""bin/migrate: brings the schema to this code's version, and says what it did."""

from bin.database import connect, migrate, where
from bin.settings import Settings
from bin.wiring import database_of, run


def main(settings: Settings) -> int:
    with connect(database_of(settings), autocommit=True) as conn:
        print(f"{where(conn.info.dsn)}: {migrate(conn)}")
    return 0


if __name__ == "__main__":
    run(main)
