"""Parses the output of `/metrics`."""

from prometheus_client.parser import text_string_to_metric_families


def numbers(exposition: str) -> dict[str, float]:
    """Values by name and labels, as in `chat_streams_ended_total{ended=complete,kind=chat}`."""
    values = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            values[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return values
