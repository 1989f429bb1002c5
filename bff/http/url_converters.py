"""URL converters for user ids, which may contain any text."""

from werkzeug.routing import BaseConverter, Map


class AnyText(BaseConverter):
    """A segment that may contain anything once it is decoded, including slashes and line ends."""

    regex = r"[\s\S]+"
    part_isolating = False


def allow_any_text(url_map: Map) -> None:
    """Registers `<any_text:…>`. Consecutive slashes are part of the text; merging them would redirect."""
    url_map.merge_slashes = False
    url_map.converters["any_text"] = AnyText
