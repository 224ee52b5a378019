from __future__ import annotations

import pytest

from fairlead.settings import GatewaySettings, read_settings


def test_read_settings_of_a_wrong_value_names_the_variable_and_not_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_SANDBOX", "s3cret")
    with pytest.raises(SystemExit, match=r"FAIRLEAD_SANDBOX: Input should be 'auto'") as ended:
        read_settings(GatewaySettings)
    assert "s3cret" not in str(ended.value)


def test_read_settings_of_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_SANDBOX", "none")
    assert read_settings(GatewaySettings).sandbox == "none"
