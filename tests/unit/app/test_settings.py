"""Every setting is documented, frozen, and read from the environment."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


def _variable(name, field):
    return (
        field.validation_alias.choices[-1] if field.validation_alias else f"MARQUEE_{name.upper()}"
    )


def _default(field):
    if field.is_required():
        return "required"
    return f"`{field.default}`" if str(field.default) else "empty"


def test_the_document_lists_exactly_the_settings_with_defaults_and_meanings():
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{_variable(name, field)}` | {_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


@pytest.mark.parametrize("name", [n for n in Settings.model_fields if n != "store"])
def test_every_setting_is_read_somewhere_in_the_service(name):
    sources = (DOCUMENT.parents[1] / "app").rglob("*.py")
    assert any(f"settings.{name}" in p.read_text() or f"given.{name}" in p.read_text()
               or f"self.{name}" in p.read_text() for p in sources)  # fmt: skip


def test_settings_come_from_the_environment_and_cannot_be_changed(monkeypatch):
    monkeypatch.setenv("MARQUEE_STORE", "somewhere")
    monkeypatch.setenv("REDIS_URL", "redis://state")
    settings = Settings()
    assert (settings.store, settings.redis_url, settings.cache_url) == (
        "somewhere", "redis://state", "redis://state",
    )  # fmt: skip
    with pytest.raises(ValidationError):
        settings.store = "elsewhere"


def test_a_setting_out_of_range_names_itself(monkeypatch):
    monkeypatch.setenv("MARQUEE_MAX_BATCH", "0")
    with pytest.raises(ValidationError, match="max_batch"):
        Settings(store="x")
