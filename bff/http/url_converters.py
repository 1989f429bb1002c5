"""URL rules for user ids, which may hold any text."""

from werkzeug.routing import BaseConverter, Map


class AnyText(BaseConverter):
    """A segment that holds anything once it is decoded, slashes and line ends included."""

    regex = r"[\s\S]+"
    part_isolating = False


def allow_any_text(url_map: Map) -> None:
    """Lets rules say `<any_text:…>`. Slashes in a row are part of the text: merging them would redirect."""
    url_map.merge_slashes = False
    url_map.converters["any_text"] = AnyText
