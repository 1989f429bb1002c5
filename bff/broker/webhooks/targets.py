"""Where the end of a message is to be delivered, decided when it is enqueued."""

from bff.broker.message_request import MessageRequest
from bff.broker.queue.deliveries import webhook_of
from bff.config.settings import Settings
from bff.errors import InvalidRequest
from bff.upstream import http


def webhook_for(content: MessageRequest, settings: Settings) -> str:
    """The `Message.webhook` of a new message. Raises InvalidRequest for a `callback_url` that must not be called."""
    if content.callback_url is not None:
        _check(content.callback_url, settings)
    urls = [url for url in (content.callback_url, settings.webhook_url) if url]
    return webhook_of(urls, {"org_id": content.org_id, "client_message_id": content.client_message_id})


def _check(url: str, settings: Settings) -> None:
    if not settings.webhook_secret:
        raise InvalidRequest("callback_url: webhooks are not configured here.", param="callback_url")
    if problem := http.problem_of(url, settings.webhook_allow_origins):
        raise InvalidRequest(f"callback_url {problem}.", param="callback_url")
