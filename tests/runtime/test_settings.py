"""Settings: every fault at once."""

from pathlib import Path

import pytest

from runtime.errors import SettingsError
from runtime.settings import Settings

GOOD = {"RESCIND_DATABASE_URL": "postgresql://u@h/d", "RESCIND_REDIS_URL": "redis://h/0"}


def test_defaults_stay_on_this_machine():
    settings = Settings.from_environment(GOOD)
    assert (settings.http_host, settings.http_port, settings.sync_port, settings.evaluation_port) == (
        "127.0.0.1",
        8016,
        8015,
        8013,
    )
    assert settings.roles == ("flags", "sagas")
    assert settings.otlp_endpoint is None


def test_everything_can_be_set():
    settings = Settings.from_environment(
        {
            **GOOD,
            "RESCIND_HTTP_HOST": "0.0.0.0",
            "RESCIND_HTTP_PORT": "80",
            "RESCIND_ROLES": "flags",
            "RESCIND_LOG_LEVEL": "DEBUG",
            "RESCIND_STATE_DIR": "/var/lib/rescind",
            "RESCIND_PUBLIC_URL": "https://rescind.example",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        }
    )
    assert (settings.http_host, settings.http_port, settings.roles, settings.log_level) == ("0.0.0.0", 80, ("flags",), "debug")
    assert (settings.state_dir, settings.otlp_endpoint) == (Path("/var/lib/rescind"), "http://127.0.0.1:4318")


def test_every_fault_is_told_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(
            {
                "RESCIND_DATABSE_URL": "postgresql://u@h/d",
                "RESCIND_REDIS_URL": "http://h",
                "RESCIND_HTTP_PORT": "eighty",
                "RESCIND_ROLES": "flags,kings",
                "RESCIND_LOG_LEVEL": "",
            }
        )
    assert caught.value.faults == (
        "RESCIND_DATABASE_URL is not set (did you mean it by RESCIND_DATABSE_URL?)",
        "RESCIND_REDIS_URL: not a URL that starts with redis:// or rediss://",
        "RESCIND_HTTP_PORT: 'eighty' is not a whole number from 0 to 65535",
        "RESCIND_ROLES: kings is not a role; roles are flags, sagas",
    )


def test_a_refused_url_is_not_repeated_with_its_password():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({**GOOD, "RESCIND_DATABASE_URL": "mysql://u:hunter2@h/d"})
    assert "hunter2" not in str(caught.value)


def test_flagds_listeners_have_settings_of_their_own():
    settings = Settings.from_environment(
        {
            **GOOD,
            "RESCIND_GRPC_ENVIRONMENT": "production",
            "RESCIND_GRPC_HOST": "0.0.0.0",
            "RESCIND_GRPC_TLS_CERTIFICATE": "/tls/certificate.pem",
            "RESCIND_GRPC_TLS_KEY": "/tls/key.pem",
            "RESCIND_GRPC_TLS_CLIENT_CA": "/tls/clients.pem",
        }
    )
    assert (settings.grpc_environment, settings.grpc_host) == ("production", "0.0.0.0")
    assert settings.grpc_tls_client_ca == Path("/tls/clients.pem")
    assert Settings.from_environment(GOOD).grpc_environment is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["CERTIFICATE"], ["KEY"]),
        (["KEY"], ["CERTIFICATE"]),
        (["CLIENT_CA"], ["CERTIFICATE", "KEY"]),
    ],
)
def test_a_certificate_and_its_key_come_together(given: list[str], missing: list[str]):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({**GOOD, **{f"RESCIND_GRPC_TLS_{name}": "/x.pem" for name in given}})
    assert caught.value.faults == tuple(
        f"RESCIND_GRPC_TLS_{name} is not set: a certificate and its key come together" for name in missing
    )


def test_origins_are_a_list_of_origins():
    def read(text: str) -> tuple[str, ...]:
        return Settings.from_environment({**GOOD, "RESCIND_ALLOWED_ORIGINS": text}).allowed_origins

    assert read("https://a.example, http://b.example:8080") == ("https://a.example", "http://b.example:8080")
    assert (read("*"), read("")) == (("*",), ())
    for wrong in ("https://a.example/", "a.example", "https://A.example", "https://a.example/path"):
        with pytest.raises(SettingsError):
            read(wrong)
