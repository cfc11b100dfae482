"""Members of a consumer group, and the partitions that each of them reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from stream_scorer.core.desk.group_lag import GroupMember

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._group import MemberDescription


def members_of(admin: AdminClient, group_id: str, topic: str, *, timeout_s: float) -> tuple[GroupMember, ...] | None:
    """Return the members of a group with their partitions of a topic; None: the brokers do not describe the group.

    A time-out of this call can abort the process (librdkafka issue 4605), as one of the call that reads commits can. So
    workers do not use it (see `kafka.admin.acls`), and the commits of the group are read first.
    """
    try:
        found = admin.describe_consumer_groups([group_id], request_timeout=timeout_s)[group_id].result()
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
