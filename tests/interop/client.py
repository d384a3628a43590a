"""Reads and writes events with other people's clients alone: confluent-kafka and its schema registry's (de)serializers,
fastavro, protoc's Python, cloudevents, jsonschema. What it reads it prints as JSON, a line a message; what it writes it takes
in the same form, from standard input. `decode` takes one message's bytes there, as kcat prints them."""

import argparse
import base64
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
from datetime import datetime, timezone

import fastavro
import jsonschema
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.formats.base import Format
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_tools import protoc

SCHEMAS = pathlib.Path(os.environ["HIGHWATER_TEST_SCHEMAS"])
AVSC = (SCHEMAS / "event.avsc").read_text()
TIMES = ("observed_at", "started_at", "raised_at", "ended_at")


def event_class():
    """What protoc makes of event.proto."""
    with tempfile.TemporaryDirectory() as out:
        well_known = pathlib.Path(protoc.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{SCHEMAS}", f"-I{well_known}", f"--python_out={out}", "event.proto"]
        if protoc.main(arguments) != 0:
            sys.exit("protoc refuses event.proto")
        spec = importlib.util.spec_from_file_location("event_pb2", f"{out}/event_pb2.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Event


def text(time):
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain_avro(record):
    """As JSON has it: times as text, and no field that is null, but the one that says "unknown" by it."""
    values = {name: text(value) if name in TIMES and value else value for name, value in record.items()}
    if values.get("links") is not None:
        values["links"] = [plain_link(link) for link in values["links"]]
    return {name: value for name, value in values.items() if value is not None or name == "clock_synced"}


def plain_link(link):
    values = {name: value for name, value in link.items() if value is not None}
    if "histogram" in values:
        values["histogram"] = base64.b64encode(values["histogram"]).decode()
    return values


def plain_protobuf_link(link):
    values = {"bytes": 0, "measured_s": 0, "unmeasured_s": 0} | {field.name: value for field, value in link.ListFields()}
    of_limit = {"limit_bps": 0, "over_s": 0}
    values["over"] = [of_limit | {field.name: value for field, value in over.ListFields()} for over in link.over]
    return plain_link(values)


def plain_protobuf(message):
    # Fields without "optional" are left out by ListFields where they are 0 or empty.
    values = {"boot_id": "", "monotonic_ms": 0, "clock_synced": None}
    for field, value in message.ListFields():
        if field.name in TIMES:
            value = text(value.ToDatetime(tzinfo=timezone.utc))
        elif field.name == "ranges":
            value = [[item.first, item.last] for item in value]
        elif field.name == "links":
            value = [plain_protobuf_link(link) for link in value]
        values[field.name] = value
    return values


class Bytes(Format):
    """Leaves the data of a CloudEvent as it is: what it is, the content type says."""

    def read_data(self, body, datacontenttype):
        return body

    def write_data(self, data, datacontenttype):
        return data

    def read(self, event_factory, data):
        raise NotImplementedError

    def write(self, event):
        raise NotImplementedError

    def get_content_type(self):
        raise NotImplementedError


def reader(args):
    context = SerializationContext(args.topic, MessageField.VALUE)
    registry = SchemaRegistryClient({"url": args.registry}) if args.registry else None
    avro = AvroDeserializer(registry) if registry else None
    Event = event_class()
    # It knows the message by its class. Given a registry too, it would ask for the schema "serialized", which Confluent's
    # registry does for a schema that was registered as text, and Apicurio's does not.
    protobuf = ProtobufDeserializer(Event, {"use.deprecated.format": False})
    schema = fastavro.parse_schema(json.loads(AVSC))
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    valid = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "event.schema.json").read_text()))

    def single_object(value):
        assert value[:10] == b"\xc3\x01" + fingerprint, value[:10].hex()
        import io

        return plain_avro(fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None))

    def from_json(value):
        event = json.loads(value)
        valid.validate(event)
        return event

    return {
        "application/json": from_json,
        "application/avro": single_object,
        "application/vnd.confluent.avro": lambda value: plain_avro(avro(value, context)),
        "application/protobuf": lambda value: plain_protobuf(Event.FromString(value)),
        "application/vnd.confluent.protobuf": lambda value: plain_protobuf(protobuf(value, context)),
    }


def messages(args):
    """All that the topic's first partition holds now."""
    consumer = Consumer(
        {
            "bootstrap.servers": args.brokers,
            "group.id": "interop",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(args.topic, 0, 0)])
    while True:
        message = consumer.poll(60)
        if message is None:
            sys.exit("no message within a minute")
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                return
            sys.exit(str(message.error()))
        yield message


def read(args):
    decode = reader(args)
    for message in messages(args):
        headers = dict(message.headers())
        cloud = from_binary(KafkaMessage(headers=headers, key=message.key(), value=message.value()), Bytes(), CloudEvent)
        attributes = {
            "id": cloud.get_id(),
            "source": cloud.get_source(),
            "type": cloud.get_type(),
            "time": text(cloud.get_time()),
            "content_type": cloud.get_datacontenttype(),
        }
        key = message.key().decode()
        event = decode[cloud.get_datacontenttype()](cloud.get_data())
        print(json.dumps({"key": key, "cloudevent": attributes, "event": event}))


def hours(args):
    """The topic of merged hours, which is JSON and has no headers."""
    for message in messages(args):
        print(json.dumps({"key": message.key().decode(), "hour": json.loads(message.value())}))


def decode(args):
    print(json.dumps(reader(args)[args.content_type](sys.stdin.buffer.read())))


def writer(args):
    context = SerializationContext(args.topic, MessageField.VALUE)
    registry = SchemaRegistryClient({"url": args.registry}) if args.registry else None
    if args.format == "json":
        return "application/json", lambda event: json.dumps(event).encode()
    if args.format == "avro":
        serialize = AvroSerializer(registry, AVSC)

        def avro(event):
            times = {name: datetime.fromisoformat(event[name]) for name in TIMES if name in event}
            return serialize({**event, **times}, context)

        return "application/vnd.confluent.avro", avro
    Event = event_class()
    serialize = ProtobufSerializer(Event, registry, {"use.deprecated.format": False})

    def protobuf(event):
        message = Event()
        for name, value in event.items():
            if name in TIMES:
                time = Timestamp()
                time.FromJsonString(value)
                getattr(message, name).CopyFrom(time)
            elif name == "ranges":
                for first, last in value:
                    message.ranges.add(first=first, last=last)
            elif value is not None:
                setattr(message, name, value)
        return serialize(message, context)

    return "application/vnd.confluent.protobuf", protobuf


def write(args):
    content_type, encode = writer(args)
    producer = Producer({"bootstrap.servers": args.brokers})
    for line in sys.stdin:
        event = json.loads(line)
        attributes = {
            "id": f"{event['epoch']}-{event['seq']}",
            "source": "/somebody/else",
            "type": f"io.highwater.{event['kind']}.v1",
            "specversion": "1.0",
            "datacontenttype": content_type,
        }
        message = to_binary(CloudEvent(attributes=attributes, data=encode(event)), Bytes())
        producer.produce(args.topic, key=event["agent"], value=message.value, headers=list(message.headers.items()))
    if producer.flush(60):
        sys.exit("not all was sent within a minute")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["read", "hours", "decode", "write"])
    parser.add_argument("--brokers")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--registry")
    parser.add_argument("--format", choices=["json", "avro", "protobuf"], default="json")
    parser.add_argument("--content-type", help="of what is decoded")
    args = parser.parse_args()
    {"read": read, "hours": hours, "decode": decode, "write": write}[args.verb](args)


if __name__ == "__main__":
    main()
