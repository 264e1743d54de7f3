"""Keys as people have them in files and variables, and addresses that no server can have."""

from __future__ import annotations

import pytest
from http_double import Answer, serving

from agent.engines import RemoteEngine
from agent.errors import ConfigurationError

MODELS = Answer({"data": [{"id": "only", "owned_by": "somebody"}]})


def test_the_line_break_at_the_end_of_a_key_file_is_no_part_of_the_key() -> None:
    with serving(lambda call: MODELS) as double:
        engine = RemoteEngine(double.address, api_key="sesame-open\n")
        engine.loop.run(engine.start())
        engine.close()
        assert [call.headers["authorization"] for call in double.calls] == ["Bearer sesame-open"]


@pytest.mark.parametrize("key", ["sesame\r\nX-Other: open", "“sesame”", "sésame", "ses\x00ame"])
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        RemoteEngine("http://localhost:8000", api_key=key)
    assert key not in str(caught.value)
    assert "same" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://localhost:99999", "http://localhost:-1", "http://xn--/v1"])
def test_an_address_that_no_server_can_have_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        RemoteEngine(address)
