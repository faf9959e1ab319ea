"""A client that knows nothing of Fracas but an address, a CA certificate and a token: reflection tells it the rest.

Prints one JSON object for the test. Arguments: address, CA file, token file.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

LIMIT = 20


def code(call):
    """The status code of a call, by name."""
    try:
        call()
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


class Bearer(grpc.AuthMetadataPlugin):
    """Puts the token on every call of a channel."""

    def __init__(self, token):
        self.token = token

    def __call__(self, context, callback):
        callback((("authorization", "Bearer " + self.token),), None)


def main():
    address, ca, token_file = sys.argv[1:]
    token = open(token_file).read().strip()
    tls = grpc.ssl_channel_credentials(open(ca, "rb").read())

    def channel(token):
        credentials = grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(Bearer(token)))
        return grpc.secure_channel(address, credentials)

    # A load balancer's question: anybody may ask.
    plain = grpc.secure_channel(address, tls)
    health = health_pb2_grpc.HealthStub(plain)
    check = lambda service: health.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT)
    serving = health_pb2.HealthCheckResponse.ServingStatus.Name(check("fracas.v1.Operator").status)
    unknown = code(lambda: check("no.such.Service"))

    trusted = channel(token)
    database = ProtoReflectionDescriptorDatabase(trusted)
    services = sorted(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    operator = pool.FindServiceByName("fracas.v1.Operator")

    def call(channel, name, **fields):
        method = operator.FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        reply = message_factory.GetMessageClass(method.output_type)
        path = "/fracas.v1.Operator/" + name
        unary = channel.unary_unary(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString)
        return unary(request, timeout=LIMIT)

    def watch(run):
        method = operator.FindMethodByName("WatchRun")
        request = message_factory.GetMessageClass(method.input_type)(run=run)
        event = message_factory.GetMessageClass(method.output_type)
        stream = trusted.unary_stream(
            "/fracas.v1.Operator/WatchRun", request_serializer=lambda m: m.SerializeToString(), response_deserializer=event.FromString
        )
        return [json.loads(e.stored)["body"]["kind"] for e in stream(request, timeout=LIMIT)]

    runs = call(trusted, "ListRuns", limit=5)
    print(json.dumps({
        "serving": serving,
        "unknown": unknown,
        "services": services,
        "methods": sorted(method.name for method in operator.methods),
        "runs": json_format.MessageToDict(runs).get("runs", []),
        "kinds": watch(runs.runs[0].run),
        "without token": code(lambda: call(plain, "ListRuns")),
        "wrong token": code(lambda: call(channel("fat1." + "0" * 64), "ListRuns")),
        "reflection without token": code(lambda: ProtoReflectionDescriptorDatabase(plain).get_services()),
        "no such run": code(lambda: call(trusted, "GetRun", run="nosuchrun")),
        "bad document": code(lambda: call(trusted, "StartRun", source="kind: Nonsense", source_name="x.yaml")),
    }))


main()
