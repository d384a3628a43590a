"""Reads merged hours with confluent-kafka, and merges the histograms of windows by HdrHistogram for Python. Windows are events in JSON,
a line each on standard input, as client.py prints them. Prints the seconds of each hour by the upper bound of their rate, as JSON:
of its windows merged here, and of the hour as it was published last.

  histograms.py BROKERS TOPIC < windows"""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition
from hdrh.histogram import HdrHistogram

KBPS_MAX = 2**33 - 1


def counts(histogram):
    """Pairs of a bit rate that is not reached, and the seconds below it. Values are whole kbit/s."""
    recorded = histogram.get_recorded_iterator()
    return [[(item.value_iterated_to + 1) * 1000, item.count_at_value_iterated_to] for item in recorded]


def p95(histogram, hour):
    """A value of a histogram is up to 1 % too high, and no percentile is above the highest second."""
    return min(max(histogram.get_value_at_percentile(95) * 1000, hour["min_bps"]), hour["max_bps"])


def windows():
    merged = {}
    for line in sys.stdin:
        event = json.loads(line)["event"]
        for link in event["links"]:
            hour = event["started_at"][:13] + ":00:00Z"
            key = "/".join([event["agent"], link["interface"], link["direction"], hour])
            histogram = merged.setdefault(key, HdrHistogram(1, KBPS_MAX, 2))
            if "histogram" in link:
                histogram.add(HdrHistogram.decode(link["histogram"]))
    return merged


def hours(brokers, topic):
    """The last message of each key in the topic's first partition."""
    settings = {"bootstrap.servers": brokers, "group.id": "interop", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = {}
    while True:
        message = consumer.poll(60)
        if message is None:
            sys.exit("no message within a minute")
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                return found
            sys.exit(str(message.error()))
        found[message.key().decode()] = json.loads(message.value())


def main():
    brokers, topic = sys.argv[1:]
    published = hours(brokers, topic)
    decoded = {key: HdrHistogram.decode(hour["histogram"]) for key, hour in published.items()}
    of_windows = windows()
    print(
        json.dumps(
            {
                "windows": {key: counts(histogram) for key, histogram in of_windows.items()},
                "hours": {key: counts(histogram) for key, histogram in decoded.items()},
                "bins": {key: [bin[1:] for bin in hour["bins"]] for key, hour in published.items()},
                "p95_bps": {key: [hour["p95_bps"], p95(decoded[key], hour)] for key, hour in published.items()},
                "measured_s": {key: [hour["measured_s"], decoded[key].get_total_count()] for key, hour in published.items()},
            }
        )
    )


main()
