"""Preparation of the demo: everything that is there before the first worker starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_scorer.core.avro.codec import Codec
from stream_scorer.kafka.admin.topics import create_topics
from stream_scorer.local.demo.campaign_side import CampaignSide, DiallerSide, WebhookSide
from stream_scorer.local.demo.contacts import contacts, no_faults
from stream_scorer.local.demo.options import DemoTarget
from stream_scorer.local.demo.producer import feed
from stream_scorer.local.demo.scenario_view import with_labels
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections import Counter

    from stream_scorer.core.scoring.types import Reason
    from stream_scorer.local.demo.environment import DemoEnvironment
    from stream_scorer.local.demo.options import DemoOptions, Screen
    from stream_scorer.local.kafka.jars import Progress
    from stream_scorer.local.simulator import Simulator
    from stream_scorer.settings import Settings


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the workers find.

    Attributes:
        settings: settings of the workers.
        simulator: the API.
        campaign: destination of the callbacks.
        generated: the produced contacts, by expected reason for rejection; None: a score is expected.
    """

    settings: Settings
    simulator: Simulator
    campaign: CampaignSide
    generated: Counter[Reason | None]


def prepare(options: DemoOptions, screen: Screen, stage: DemoEnvironment) -> Prepared:
    """Start Kafka and the servers, create the topics, and produce the contacts.

    Raises:
        LocalError: a part cannot be started here.
        BrokerError: Kafka rejects a request.
    """
    with screen.steps() as show_step:
        stage.prepare(options.contacts)
        stage.start_kafka(show_step)
        show_step("starting the simulator of the Genesys API")
        simulator = stage.start_simulator(options.scenario)
        campaign = _campaign_side(options, stage, simulator, show_step)
        settings = stage.settings
        show_step("creating the topics")
        create_topics(settings)
        return Prepared(settings, simulator, campaign, _feed(options, settings, show_step))


def _campaign_side(
    options: DemoOptions, stage: DemoEnvironment, simulator: Simulator, show_step: Progress
) -> CampaignSide:
    if options.target is DemoTarget.DIALLER:
        stage.use_dialler(simulator)
        return DiallerSide(simulator)
    show_step("starting a campaign manager")
    return WebhookSide(stage.start_receiver())


def _feed(options: DemoOptions, settings: Settings, show_step: Progress) -> Counter[Reason | None]:
    codec = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
    now_ms = time.time_ns() // 1_000_000
    doing = f"producing {options.contacts:,} contacts"
    show_step(doing)
    refuses = no_faults if options.scenario is None else options.scenario.refuses
    records = contacts(codec, options.contacts, seed=options.seed, now_ms=now_ms, spared=refuses)
    return feed(settings, with_labels(records, refuses), lambda number: show_step(f"{doing}: {number:,}"))
