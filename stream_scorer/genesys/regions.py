"""Regions of Genesys Cloud: one API host and one login host each."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_REGION: Final = "mypurecloud.com"

REGIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mypurecloud.com": "US East (Virginia)",
        "mypurecloud.ie": "EU West (Ireland)",
        "mypurecloud.de": "EU Central (Frankfurt)",
        "mypurecloud.com.au": "Asia Pacific (Sydney)",
        "mypurecloud.jp": "Asia Pacific (Tokyo)",
        "usw2.pure.cloud": "US West (Oregon)",
        "cac1.pure.cloud": "Canada (Montreal)",
        "apne2.pure.cloud": "Asia Pacific (Seoul)",
        "apne3.pure.cloud": "Asia Pacific (Osaka)",
        "euw2.pure.cloud": "EU West (London)",
        "euc2.pure.cloud": "EU Central (Zurich)",
        "aps1.pure.cloud": "Asia Pacific (Mumbai)",
        "apse1.pure.cloud": "Asia Pacific (Singapore)",
        "sae1.pure.cloud": "South America (Sao Paulo)",
        "mec1.pure.cloud": "Middle East (UAE)",
        "mxc1.pure.cloud": "Mexico",
        "use2.us-gov-pure.cloud": "US East (FedRAMP)",
        "edee1.eusc-pure.cloud": "EU Sovereign (Germany)",
    },
)


def api_url(region: str) -> str:
    """Return the base URL of the region's API.

    Raises:
        SettingsError: the region is not in `REGIONS`.
    """
    return f"https://api.{_known(region)}"


def login_url(region: str) -> str:
    """Return the base URL of the region's login service, which issues the tokens.

    Raises:
        SettingsError: the region is not in `REGIONS`.
    """
    return f"https://login.{_known(region)}"


def login_url_for(base_url: str) -> str:
    """Return the login service of an API base URL.

    ``https://api.<region>`` has its tokens at ``https://login.<region>``. Any other host (a proxy, the simulator) is
    assumed to serve both.
    """
    base_url = base_url.rstrip("/")
    for region in REGIONS:
        if base_url.lower() == f"https://api.{region}":
            return login_url(region)
    return base_url


def quoted_region(region: str) -> str:
    """Return a region for an error, with a trailing blank; empty if it is a URL, which may hold a password."""
    return "" if "://" in region or "@" in region else f"{region!r} "


def _known(region: str) -> str:
    if region not in REGIONS:
        known = ", ".join(REGIONS)
        raise SettingsError(
            f"genesys.region: {quoted_region(region)}is no region of Genesys Cloud; use one of {known},"
            " or set genesys.base_url and genesys.login_url",
        )
    return region
