"""Permanent common data of an embedded Kafka's nodes, in `cluster.json` of their parent folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.errors import LocalError, printable
from stream_scorer.local.files import replace_file
from stream_scorer.local.kafka.config import DEFAULT_PORT, new_cluster_id
from stream_scorer.local.kafka.node import Voter
from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_FILE: Final = "cluster.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """Cluster id, nodes, and client ports in the nodes' order."""

    cluster_id: str
    voters: tuple[Voter, ...]
    ports: tuple[int, ...]


def plan_layout(size: int, port: int | None, avoid: Collection[int] = ()) -> Layout:
    """Choose ids and ports; the controllers' are permanent, since the nodes write them into their data.

    Args:
        size: number of nodes.
        port: client port of the first node; None: the default; 0: any free ports.
        avoid: ports that the nodes use otherwise.
    """
    first = DEFAULT_PORT if port is None else port
    ports: list[int] = [first + place for place in range(size)] if first else []
    controllers: list[int] = []
    for drawn in (ports, controllers):
        while len(drawn) < size:
            drawn.append(free_port((*avoid, *ports, *controllers)))
    voters = (Voter(place + 1, controller, new_cluster_id()) for place, controller in enumerate(controllers))
    return Layout(new_cluster_id(), tuple(voters), tuple(ports))


def write_layout(data_dir: Path, layout: Layout) -> None:
    """Write the layout to the folder.

    Raises:
        LocalError: the file cannot be written.
    """
    replace_file(data_dir / _FILE, json.dumps(asdict(layout)))


def remove_layout(data_dir: Path) -> None:
    """Remove the layout, so that the next start chooses another."""
    (data_dir / _FILE).unlink(missing_ok=True)


def read_layout(data_dir: Path) -> Layout | None:
    """Return the layout of the folder; None: the folder has no cluster.

    Raises:
        LocalError: the file cannot be read, or is malformed.
    """
    file = data_dir / _FILE
    try:
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        voters = tuple(Voter(**voter) for voter in known["voters"])
        return Layout(known["cluster_id"], voters, tuple(known["ports"]))
    except FileNotFoundError:
        return None
    except OSError as error:  # an error of the folder, so it must not be removed
        raise LocalError(f"cannot read {printable(str(file))}: {error.strerror}; choose another --data-dir") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LocalError(
            f"cannot read {printable(str(file))} ({type(error).__name__}): remove the folder and start again"
        ) from error
