"""What the configuration takes, and what it makes of it."""

from pathlib import Path

import pytest

from asyncproc.config import Settings, load, shown
from asyncproc.core.states import FINAL, State
from asyncproc.errors import ConfigError

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def settings(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "asyncproc.yaml").write_text(text)
    return load(None, environ, folder)


def test_every_final_state_is_kept_for_a_time_of_its_own(tmp_path: Path) -> None:
    retention = settings(tmp_path, "retention: {succeeded: 2h, failed: 90d}").retention

    assert retention.kept_s() == {State.SUCCEEDED: 2 * HOUR_S, State.FAILED: 90 * DAY_S, State.CANCELLED: 7 * DAY_S}
    assert Settings().retention.kept_s().keys() == FINAL


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_what_is_off_is_kept_for_ever(tmp_path: Path, word: str) -> None:
    loaded = settings(tmp_path, f"retention: {{failed: {word}}}")

    assert State.FAILED not in loaded.retention.kept_s()
    assert "failed: 'off'" in shown(loaded)
    assert "succeeded: 168h" in shown(loaded)


def test_retention_can_be_set_by_the_environment(tmp_path: Path) -> None:
    loaded = settings(tmp_path, "", ASYNCPROC_RETENTION_SUCCEEDED="1d", ASYNCPROC_RETENTION_FAILED="off")

    assert loaded.retention.kept_s() == {State.SUCCEEDED: DAY_S, State.CANCELLED: 7 * DAY_S}


@pytest.mark.parametrize("value", ["59m", "0", "-1d", "1w", "1.5d", "200000d", ".nan", "null", "[1h]"])
def test_a_retention_that_makes_no_sense_is_refused_by_its_name(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"retention\.failed"):
        settings(tmp_path, f"retention: {{failed: {value}}}")
