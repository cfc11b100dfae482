from __future__ import annotations

import pytest

from stream_scorer.errors import SettingsError
from stream_scorer.genesys.regions import DEFAULT_REGION, REGIONS, api_url, login_url, login_url_for


def test_urls_of_a_region() -> None:
    assert api_url("usw2.pure.cloud") == "https://api.usw2.pure.cloud"
    assert login_url("usw2.pure.cloud") == "https://login.usw2.pure.cloud"
    assert DEFAULT_REGION in REGIONS
    assert len(REGIONS) == 18


@pytest.mark.parametrize("of", [api_url, login_url])
def test_unknown_region_names_the_setting_and_the_known_ones(of: object) -> None:
    with pytest.raises(SettingsError, match=r"genesys\.region: 'evil\.example/'.*mypurecloud\.ie.*genesys\.base_url"):
        of("evil.example/")


@pytest.mark.parametrize(
    ("base", "login"),
    [
        ("https://api.mypurecloud.com", "https://login.mypurecloud.com"),
        ("https://api.mypurecloud.com.au/", "https://login.mypurecloud.com.au"),
        ("https://API.mypurecloud.de", "https://login.mypurecloud.de"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://api.proxy.example", "https://api.proxy.example"),
        ("http://api.mypurecloud.com", "http://api.mypurecloud.com"),
    ],
)
def test_login_service_of_a_base_url(base: str, login: str) -> None:
    assert login_url_for(base) == login
