"""Which broker has a message of direct chat: the bundled one, or an external one that numbers its events."""

from collections.abc import Callable
from typing import TypeVar

from bff.api import services
from bff.auth.identity import Identity
from bff.errors import NotFound
from bff.upstream import message_ids
from bff.upstream.broker_client import ActiveMessage, BrokerClient
from bff.upstream.message_ids import MESSAGE_ID

T = TypeVar("T")


def active_messages(identity: Identity) -> list[ActiveMessage]:
    """The user's messages in this org that wait or run, in order. Raises an UpstreamFailure."""
    messages = services.parts().own_broker.queue_positions(identity.user_id)
    if external := external_broker(identity):
        messages += external.queue_positions(identity.user_id)
    return [message for message in messages if message_ids.may_be_of(message.message_id, identity.org)]


def check_message_id(message_id: str, identity: Identity) -> None:
    """Raises NotFound."""
    if not MESSAGE_ID.fullmatch(message_id) or not message_ids.may_be_of(message_id, identity.org):
        raise NotFound


def try_brokers(identity: Identity, call: Callable[[BrokerClient], T]) -> tuple[BrokerClient, T]:
    """Calls the bundled broker, then an external one that numbers its events. Raises NotFound, an UpstreamFailure."""
    own_broker = services.parts().own_broker
    try:
        return own_broker, call(own_broker)
    except NotFound:
        if (external := external_broker(identity)) is None:
            raise
    return external, call(external)


def external_broker(identity: Identity) -> BrokerClient | None:
    """An external broker that numbers its events; another one's messages are in our own queue. Raises an UpstreamFailure."""
    parts = services.parts()
    is_external = parts.broker is not parts.own_broker
    return parts.broker if is_external and parts.broker.numbers_events(identity.user_id) else None
