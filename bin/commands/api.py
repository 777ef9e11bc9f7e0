"""bin/api: the front door alone. It starts runs and reads them; workers execute them. Serves PORT, and ADMIN_PORT for operators."""

from bin.roles import Role, serve_until_stopped
from bin.serving import address_of, listen, listen_nearby
from bin.settings import Settings
from bin.wiring import migrated_database, run


def main(settings: Settings) -> int:
    door = listen("PORT", settings.listen_host, settings.port)
    dsn = migrated_database(settings)
    role = Role("api", listen_nearby(settings.admin_host, settings.admin_port), door)

    def up() -> None:
        print(f"holdfast api is up: {address_of(door)}, for operators {address_of(role.admin)}", flush=True)

    return serve_until_stopped(settings, dsn, role, when_up=up)


if __name__ == "__main__":
    run(main)
