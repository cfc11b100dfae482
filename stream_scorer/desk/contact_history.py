"""Reader of the history of one contact, over all topics that exist.

Most records are of other contacts. So their bytes are searched for the id, and only those that contain it are decoded.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

from stream_scorer.core.desk.history import History
from stream_scorer.core.desk.record_filter import RecordFilter
from stream_scorer.core.retry_topics import parse_source
from stream_scorer.desk.record_decoder import TOPIC_KEYS, RecordDecoder, topic_names
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.kafka.admin.topics import check_topics, existing_topics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.desk.history import HistoryEvent
    from stream_scorer.settings import Settings

# The topics are read at the same time: most of a scan is a wait for the first and the last batch.
_SCANS: Final = 6
_RETRIES: Final = frozenset({"features_retry", "callbacks_retry"})
_DECISIONS: Final = "decisions"


class ContactHistory:
    """History of a contact; it is read by `read`.

    Args:
        settings: the cluster, and the schema registry if there is one.
        selection: the contact, and the bounds of time.

    Attributes:
        missing: topics that do not exist, or that this user may not see.

    Raises:
        SettingsError: ``schema_registry.properties`` is invalid.
        BrokerError: Kafka cannot be reached, or none of the topics exists.
    """

    def __init__(self, settings: Settings, selection: RecordFilter) -> None:
        self._settings = settings
        self._selection = selection
        self._adding = Lock()
        # Several keys may have one topic.
        keys = {name: key for key in TOPIC_KEYS for name in topic_names(settings, key)}
        present = existing_topics(settings, keys)
        self._keys = {name: keys[name] for name in present}
        if not present:
            check_topics(settings, [settings.topics.features])
        self.missing = tuple(name for name in settings.all_topics if name not in present)

    def read(self) -> list[HistoryEvent]:
        """Return the events in order.

        Raises:
            BrokerError: the brokers stopped answering, or a right is missing.
            RegistryError: the schema registry does not answer, or refuses the request.
        """
        history = History(self._selection)
        contacts = {name: key for name, key in self._keys.items() if key != _DECISIONS}
        self._read_topics(contacts, self._selection, history)
        # A decision names the record, not the contact.
        places = frozenset(place for one in history.places if (place := parse_source(one)) is not None)
        decisions = {name: key for name, key in self._keys.items() if key == _DECISIONS}
        if places:
            about = RecordFilter(self._selection.since, self._selection.until, places=places)
            self._read_topics(decisions, about, history)
        return history.ordered()

    def _read_topics(self, topics: Mapping[str, str], selection: RecordFilter, history: History) -> None:
        stopped = Event()
        reading = partial(self._read_topic, selection=selection, history=history, stopped=stopped)
        with ThreadPoolExecutor(_SCANS) as pool:
            try:
                for _ in pool.map(reading, topics.keys(), topics.values()):
                    pass
            except BaseException:  # Ctrl-C too: the other scans would be waited for
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read_topic(self, topic: str, key: str, *, selection: RecordFilter, history: History, stopped: Event) -> None:
        decoder = RecordDecoder(self._settings, key)
        for batch in TopicScan(self._settings, topic, selection).batches():
            if stopped.is_set():
                return
            for record in batch:
                if not selection.may_match(record):
                    continue
                decoded = decoder.decode(record)
                if selection.matches(record, decoded.ids):
                    with self._adding:
                        history.add(decoded, is_retry=key in _RETRIES)
