"""Follows the events of Highwater's agents, and adds up what was over the limits: a small consumer in Python.

    pip install 'confluent-kafka[avro,protobuf,schemaregistry]'
    python examples/consumer.py --brokers kafka-1:9092

Each message is a line: agent/interface, then the bytes above the limit so far, over all breaches of that interface. An event
tells what its breach has come to since it began, and may come twice; so the greatest of each breach counts. JSON and, with
--registry, Avro are read; for Protobuf compile what `highwater-agent schema --format proto` prints, and use
ProtobufDeserializer in the place of AvroDeserializer.
"""

import argparse
import json
import logging

from confluent_kafka import Consumer, KafkaError
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def main():
    parser = argparse.ArgumentParser(description="Adds up what was over the limits.")
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="highwater.events")
    parser.add_argument("--group", default="highwater-example")
    parser.add_argument("--registry", help="the schema registry's URL")
    parser.add_argument("--until-end", action="store_true", help="end when there is no more")
    args = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)

    avro = AvroDeserializer(SchemaRegistryClient({"url": args.registry})) if args.registry else None
    consumer = Consumer(
        {
            "bootstrap.servers": args.brokers,
            "group.id": args.group,
            # The sums live in this process: each run begins from the beginning.
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([args.topic])
    sums = Sums()
    ended = set()
    try:
        while True:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    logging.error("%s", message.error())
                    continue
                ended.add(message.partition())
                if args.until_end and ended == {partition.partition for partition in consumer.assignment()}:
                    break
                continue
            event = decode(message, avro)
            if event and event.get("breach_id"):
                total = sums.add(event)
                logging.info("%s/%s %d bytes over", event["agent"], event["interface"], total)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


class Sums:
    """Bytes over the limits, an agent and interface."""

    def __init__(self):
        self.of_breach = {}
        self.of_interface = {}

    def add(self, event):
        breach = (event["agent"], event["breach_id"])
        interface = (event["agent"], event["interface"])
        before = self.of_breach.get(breach, 0)
        now = max(before, event["excess_bytes"])
        self.of_breach[breach] = now
        self.of_interface[interface] = self.of_interface.get(interface, 0) + now - before
        return self.of_interface[interface]


def decode(message, avro):
    """The event, or None where this example does not understand it: a consumer goes on."""
    value = message.value() or b""
    try:
        if value.startswith(b"{"):
            return json.loads(value)
        if value.startswith(b"\0") and avro:
            return avro(value, SerializationContext(message.topic(), MessageField.VALUE))
    except Exception as error:  # whatever is wrong with one message, the next may be well
        logging.warning("offset %d of partition %d: %s", message.offset(), message.partition(), error)
        return None
    logging.warning("offset %d of partition %d: %r is in no format known here", message.offset(), message.partition(), value[:4])
    return None


if __name__ == "__main__":
    main()
