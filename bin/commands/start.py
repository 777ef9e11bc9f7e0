"""bin/start: everything in one process. The database if none is configured, its schema, the seed recipes, front door and worker."""

from bin.commands.migrate import prepare
from bin.roles import Role, serve_until_stopped
from bin.serving import address_of, listen, listen_nearby
from bin.settings import Settings
from bin.wiring import database_of, run


def main(settings: Settings) -> int:
    door = listen("PORT", settings.listen_host, settings.port)
    dsn = database_of(settings)
    prepare(dsn)
    role = Role("start", listen_nearby(settings.admin_host, settings.admin_port), door, works=True)

    def up() -> None:
        print(f"holdfast is up: {address_of(door)}, for operators {address_of(role.admin)}; Ctrl-C drains", flush=True)

    return serve_until_stopped(settings, dsn, role, when_up=up)


if __name__ == "__main__":
    run(main)
