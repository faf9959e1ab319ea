"""What every attacker shares: the interface, which the controller itself tells whoever has a token, and a channel.

Each attack is a program of its own that prints JSON lines for the test. It knows nothing of the product but its addresses.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

LIMIT = 20
# The name in every controller's certificate, whatever its address is.
NAME = "fracas-controller"


def say(**what):
    print(json.dumps(what), flush=True)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def channel(address, ca, key=None, cert=None, fresh=False):
    """A connection that trusts this CA; with a client's certificate, if one is given."""
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.max_receive_message_length", 64 << 20)]
    options += [("grpc.use_local_subchannel_pool", 1)] if fresh else []
    pair = {"private_key": read(key), "certificate_chain": read(cert)} if key else {}
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(read(ca), **pair), options)


def bearer(token):
    return (("authorization", "Bearer " + token),)


def code(call):
    """The status of a call and what was said, or "OK" and its answer as text."""
    try:
        return "OK", str(call())
    except grpc.RpcError as error:
        return error.code().name, error.details()


class Described(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Puts a token on the calls of reflection, which know none."""

    def __init__(self, token):
        self.token = token

    def with_token(self, details):
        more = list(details.metadata or ()) + list(bearer(self.token))
        return grpc._interceptor._ClientCallDetails(
            details.method, details.timeout, more, details.credentials, details.wait_for_ready, details.compression
        )

    def intercept_unary_unary(self, go_on, details, request):
        return go_on(self.with_token(details), request)

    def intercept_stream_stream(self, go_on, details, requests):
        return go_on(self.with_token(details), requests)


class Interface:
    """The services and messages, asked of a controller."""

    def __init__(self, channel, token):
        database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Described(token)))
        self.pool = descriptor_pool.DescriptorPool(database)

    def service(self, name):
        return self.pool.FindServiceByName(name)

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName("fracas.v1." + name))

    def call(self, channel, method, request, metadata=(), first=200):
        """Calls a method; of a stream the first answers are taken."""
        service = method.containing_service.full_name
        path, reply = f"/{service}/{method.name}", message_factory.GetMessageClass(method.output_type)
        how = {"request_serializer": lambda m: m.SerializeToString(), "response_deserializer": reply.FromString}
        if method.server_streaming:
            stream = channel.unary_stream(path, **how)(request, timeout=3, metadata=metadata)
            answers = []
            try:
                for answer in stream:
                    answers.append(str(answer))
                    if len(answers) >= first:
                        break
            except grpc.RpcError as error:
                # A history that goes on has no end.
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED or not answers:
                    raise
            return "\n".join(answers)
        return channel.unary_unary(path, **how)(request, timeout=LIMIT, metadata=metadata)

    def filled(self, method, known):
        """A request in which every field that is known by name has that value."""
        request = message_factory.GetMessageClass(method.input_type)()
        for field in method.input_type.fields:
            value = known.get(f"{method.name}.{field.name}", known.get(field.name))
            if value is None:
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                getattr(request, field.name).update(value)
            elif field.message_type is not None:
                # A role.
                target = getattr(request, field.name)
                target = target.add() if field.is_repeated else target
                for name, part in value.items():
                    setattr(target, name, part)
            else:
                setattr(request, field.name, value)
        return request
