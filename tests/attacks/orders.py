"""A false controller: it listens where the real one did, with whatever key and certificate it got hold of.

`FILES FRONT CA ADMIN-TOKEN`: writes what is needed of the interface to FILES, while the real controller still tells it.
`serve FILES ADDRESS CA KEY CERT`: serves agents. It prints each message of theirs, and says to the newest session what comes
as a JSON line: `{"desired": {...}}`, `{"grant": {"echo": N, "leaseMs": N}}`; `{"lease": N}` lets it answer each renewal with
an honest grant of so many milliseconds, 0 with none.
"""

import queue
import threading
from concurrent import futures

from google.protobuf import json_format


def told(files, front, ca, admin):
    interface = Interface(channel(front, ca), read(admin).decode().strip())
    wanted = descriptor_pb2.FileDescriptorSet()
    interface.pool.FindServiceByName("fracas.v1.Fleet").file.CopyToProto(wanted.file.add())
    with open(files, "wb") as file:
        file.write(wanted.SerializeToString())


class Fleet(grpc.GenericRpcHandler):
    def __init__(self, message):
        self.message, self.lease, self.sessions = message, 0, 0
        self.down = queue.Queue()

    def service(self, call):
        if not call.method.endswith("/Session"):
            return None
        up = self.message("AgentMessage")
        return grpc.stream_stream_rpc_method_handler(
            self.session, request_deserializer=up.FromString, response_serializer=lambda m: m.SerializeToString()
        )

    def grant(self, echo, lease_ms):
        clock = json.dumps({"host": "false", "boot": "false"})
        now = 1
        return self.message("ControllerMessage")(
            grant={"echo_boot_ns": echo, "lease_ms": lease_ms, "received_ns": now, "sent_ns": now, "clock_json": clock}
        )

    def session(self, requests, context):
        self.sessions += 1
        number, self.down = self.sessions, queue.Queue()
        down = self.down

        def hear():
            try:
                for up in requests:
                    kind = up.WhichOneof("message")
                    if kind == "renew" and self.lease:
                        down.put(self.grant(up.renew.boot_ns, self.lease))
                    if kind == "report":
                        # What was told is not told again.
                        last = up.report.events[-1].seq
                        ack = {"outbox": up.report.outbox, "seq": last}
                        down.put(self.message("ControllerMessage")(ack=ack))
                    fields = json_format.MessageToDict(getattr(up, kind))
                    fields.pop("catalogueJson", None)
                    bodies = [json.loads(event.body) for event in up.report.events]
                    say(session=number, kind=kind, fields=fields if kind != "report" else {}, bodies=bodies)
            except grpc.RpcError:
                pass
            say(session=number, kind="ended")
            down.put(None)

        threading.Thread(target=hear, daemon=True).start()
        welcome = {"controller_version": "0.0.0", "heartbeat_ms": 200, "reconnect_cap_ms": 1000}
        yield self.message("ControllerMessage")(welcome=welcome)
        while (message := down.get()) is not None:
            yield message


def serve(files, address, ca, key, cert):
    wanted = descriptor_pb2.FileDescriptorSet.FromString(read(files))
    pool = descriptor_pool.DescriptorPool()
    for file in wanted.file:
        pool.Add(file)
    message = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName("fracas.v1." + name))
    fleet = Fleet(message)
    server = grpc.server(futures.ThreadPoolExecutor(16), handlers=(fleet,))
    shown = grpc.ssl_server_credentials([(read(key), read(cert))], read(ca), True)
    assert server.add_secure_port(address, shown)
    server.start()
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "lease" in order:
            fleet.lease = order["lease"]
        if "grant" in order:
            fleet.down.put(fleet.grant(order["grant"]["echo"], order["grant"]["leaseMs"]))
        if "desired" in order:
            fleet.down.put(message("ControllerMessage")(desired={"desired_json": json.dumps(order["desired"])}))
    server.stop(None)


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
else:
    told(*sys.argv[1:])
