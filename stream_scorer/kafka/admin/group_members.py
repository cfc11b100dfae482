"""Members of a consumer group, and the partitions that each of them reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from stream_scorer.core.desk.group_lag import GroupMember
from stream_scorer.kafka.client.coordinator_requests import coordinator_result

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._group import MemberDescription


def members_of(admin: AdminClient, group_id: str, topic: str, *, timeout_s: float) -> tuple[GroupMember, ...] | None:
    """Return the members of a group with their partitions of a topic; None: the brokers do not describe the group.

    They may not be allowed to, or may not answer in time.
    """
    try:
        found = coordinator_result(admin.describe_consumer_groups, group_id, timeout_s=timeout_s)
    except KafkaException:
        return None
    members = (
        GroupMember(
            member.group_instance_id or _name(member),
            tuple(sorted(one.partition for one in member.assignment.topic_partitions if one.topic == topic)),
        )
        for member in found.members
    )
    return tuple(sorted(members))


def _name(member: MemberDescription) -> str:
    """Return host and the first part of the UUID of a member without a name of its own; several may share a host."""
    unique = member.member_id.removeprefix(f"{member.client_id}-").partition("-")[0]
    return f"{member.host.removeprefix('/')} {unique[:8]}"
