"""Settings are read once, completely, and a wrong one is told in one line."""

from datetime import timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from bin.settings import OURS, Settings, read_settings
from bin.variables import BadSetting, names


def refusal(**environ: str) -> str:
    with pytest.raises(BadSetting) as told:
        read_settings(environ)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert (settings.port, settings.admin_port, settings.listen_host) == (3001, 3002, "127.0.0.1")
    assert (settings.app_version, settings.oc_mode, settings.sbx_mode) == ("v1", "replay", "mock")
    assert settings.database is None
    assert settings.state_dir.name == ".state"


def test_every_kind_of_setting_is_read_from_its_variable() -> None:
    settings = read_settings(
        {
            "PORT": "4001",
            "DBOS__APPVERSION": "v2",
            "OC_STRICT_MODE": "1",
            "ENABLE_LEGACY_RUN_ROUTES": "false",
            "CLAIM_SCOPE": "live-smoke",
            "STATE_DIR": "/var/lib/holdfast",
            "RANDOM_SEED": "-7",
            "SBX_QUEUE_CONCURRENCY": "9",
            "INTENT_QUEUE_PARTITION": "0",
            "K6_RAMP_UP": "1m30s",
            "TRACE_BASE_URL": "https://traces.example/t/{traceId}?span={spanId}",
        }
    )
    assert settings.port == 4001
    assert settings.app_version == "v2"
    assert settings.oc_strict_mode is True
    assert settings.enable_legacy_run_routes is False
    assert settings.claim_scope == "live-smoke"
    assert settings.state_dir == Path("/var/lib/holdfast")
    assert settings.random_seed == -7
    assert settings.sbx_queue.concurrency == 9
    assert settings.sbx_queue.worker_concurrency == Settings().sbx_queue.worker_concurrency
    assert settings.intent_queue.partition is False
    assert settings.load.ramp_up == timedelta(seconds=90)
    assert settings.trace_base_url == "https://traces.example/t/{traceId}?span={spanId}"


def test_an_empty_value_counts_as_not_set() -> None:
    assert read_settings(dict.fromkeys(names(Settings), "")) == Settings()


@pytest.mark.parametrize("text", ["abc", "1.5", " 1", "1e3", "0x10", "٣", "--1", "1_000"])
def test_a_malformed_integer_is_named(text: str) -> None:
    assert refusal(PORT=text) == f"PORT: invalid integer env value: {text}"


def test_an_integer_out_of_its_range_is_named_with_the_range() -> None:
    assert refusal(ADMIN_PORT="65536") == "ADMIN_PORT: invalid integer env value: 65536; it must be from 0 to 65535"
    assert refusal(HITL_PLAN_APPROVAL_TIMEOUT_S="0").startswith("HITL_PLAN_APPROVAL_TIMEOUT_S: invalid integer env value: 0")
    assert refusal(SBX_QUEUE_WORKER_CONCURRENCY="-1").startswith("SBX_QUEUE_WORKER_CONCURRENCY: invalid integer env value: -1")


def test_a_malformed_boolean_is_named() -> None:
    assert refusal(OC_STRICT_MODE="yes").startswith("OC_STRICT_MODE: invalid boolean env value: yes")


def test_a_word_that_is_no_choice_is_named_with_the_choices() -> None:
    assert refusal(OC_MODE="lve") == "OC_MODE: invalid mode env value: lve; use replay, record, live"
    assert refusal(SBX_PROVIDER="docker").startswith("SBX_PROVIDER: invalid provider env value: docker")


@pytest.mark.parametrize("text", ["traces", "ftp://host/", "http://", "http://host:port/", "//host"])
def test_a_malformed_url_is_named(text: str) -> None:
    assert refusal(TRACE_BASE_URL=text).startswith(f"TRACE_BASE_URL: invalid url env value: {text}")


def test_a_misspelt_setting_of_ours_is_named_with_the_nearest_right_one() -> None:
    assert refusal(SBX_QUEUE_CONCURENCY="3") == "SBX_QUEUE_CONCURENCY: no such setting; is it SBX_QUEUE_CONCURRENCY?"
    assert refusal(WF_QQQQQQQQQQQQQQQQQ="1") == "WF_QQQQQQQQQQQQQQQQQ: no such setting"


def test_the_variables_of_others_are_none_of_our_business() -> None:
    assert (
        read_settings({"HOME": "/home/me", "OCTOPUS": "8", "DBOS_SYSTEM_DATABASE_URL": "x", "HITL_SOAK_WAITS": "10"})
        == Settings()
    )


def test_every_prefix_of_ours_is_in_use() -> None:
    known = set(names(Settings))
    assert all(any(name.startswith(prefix) for name in known) for prefix in OURS)


def test_a_database_url_wins_over_the_parts() -> None:
    settings = read_settings({"DATABASE_URL": "postgresql://me@db/shop", "DB_HOST": "elsewhere"})
    assert settings.database == "postgresql://me@db/shop"


@pytest.mark.parametrize("name", ["DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD"])
def test_any_part_of_a_database_address_means_that_there_is_one(name: str) -> None:
    database = read_settings({name: "777"}).database
    assert database is not None
    assert conninfo_to_dict(database) == {
        "host": "777" if name == "DB_HOST" else "127.0.0.1",
        "port": "777" if name == "DB_PORT" else "54329",
        "user": "777" if name == "DB_USER" else "postgres",
        "password": "777" if name == "DB_PASSWORD" else "postgres",
        "dbname": "app_local",
    }


def test_only_a_database_name_still_means_the_embedded_server() -> None:
    assert read_settings({"APP_DB_NAME": "mine"}).database is None


def test_a_password_with_blanks_and_quotes_survives() -> None:
    database = read_settings({"DB_PASSWORD": "it's a \\ secret"}).database
    assert database is not None
    assert conninfo_to_dict(database)["password"] == "it's a \\ secret"


def test_a_malformed_database_url_is_refused_without_showing_it() -> None:
    assert "s3cret" not in refusal(DATABASE_URL="mysql://me:s3cret@db/shop")
    assert "s3cret" not in refusal(DATABASE_URL="s3cret")


def test_no_secret_is_in_the_representation() -> None:
    settings = read_settings(
        {
            "DATABASE_URL": "postgresql://me:s3cret@db/shop",
            "DB_PASSWORD": "s3cret",
            "E2B_API_KEY": "s3cret",
            "OPENCODE_SERVER_PASSWORD": "s3cret",
        }
    )
    assert "s3cret" not in repr(settings)


def test_telemetry_needs_endpoints_of_both_kinds() -> None:
    assert refusal(DBOS_ENABLE_OTLP="true").startswith("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: needed")
    assert refusal(DBOS_ENABLE_OTLP="1", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://a:1").startswith(
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
    )
    assert refusal(DBOS_ENABLE_OTLP="1", OTEL_EXPORTER_OTLP_ENDPOINT="http://a:1,b").startswith(
        "OTEL_EXPORTER_OTLP_ENDPOINT: invalid url"
    )
