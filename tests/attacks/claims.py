"""A host that has joined and turned bad: what it claims of itself, of others, and in its signing request.

`FRONT FLEET CA ADMIN-TOKEN KEY CERT JOIN-TOKEN CSR OTHER-HOST OWN-HOST`
"""

import queue
import threading
import time


def claims(front, fleet, ca, admin, key, cert, token, csr, other, own):
    interface = Interface(channel(front, ca), read(admin).decode().strip())
    up_class, down_class = interface.message("AgentMessage"), interface.message("ControllerMessage")
    service = interface.service("fracas.v1.Fleet")

    enrol = interface.message("EnrolRequest")(
        token=token, signing_request_pem=read(csr).decode(), hostname="\x1b]0;forged\x07\u202e../../owned"
    )
    stranger = channel(fleet, ca)
    path, reply = "/fracas.v1.Fleet/Enrol", interface.message("EnrolReply")
    call = stranger.unary_unary(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString)
    try:
        answer = call(enrol, timeout=LIMIT)
    except grpc.RpcError as error:
        say(what="hostname refused", status=error.code().name, said=error.details())
        # The token is good for one host, and none has joined.
        enrol.hostname = "newcomer"
        answer = call(enrol, timeout=LIMIT)
    say(what="enrolled", host=answer.host_id, certificate=answer.certificate_pem)

    def session(messages, wait=3.0):
        """Says all this in one session; whether there was a welcome, and how it ended."""
        way, waiting = channel(fleet, ca, key, cert, fresh=True), queue.Queue()
        for message in messages:
            waiting.put(message)

        def each():
            until = time.monotonic() + wait
            while (left := until - time.monotonic()) > 0:
                try:
                    yield waiting.get(timeout=left)
                except queue.Empty:
                    return

        stream = way.stream_stream(
            "/fracas.v1.Fleet/Session", request_serializer=lambda m: m.SerializeToString(), response_deserializer=down_class.FromString
        )(each(), timeout=LIMIT)
        welcome, acks, status, said = False, [], "OK", ""
        try:
            for down in stream:
                kind = down.WhichOneof("message")
                welcome |= kind == "welcome"
                if kind == "ack":
                    acks.append(down.ack.seq)
        except grpc.RpcError as error:
            status, said = error.code().name, error.details()
        way.close()
        return {"welcome": welcome, "acks": acks, "status": status, "said": said}

    right = {
        "hostname": "forged", "os": "forged", "kernel": "forged", "arch": "x86_64", "cpus": 1, "memoryBytes": 1,
        "agentVersion": "0.1.0", "uid": 0, "abilities": {},
    }
    forged = {"labels": {"role": "forged", "fracas/environment": "forged", "fracas/observer": "forged"}, "id": other}
    forged |= {"role": "forged", "fracas/environment": "forged", "environment": "forged", "name": "forged"}
    hello = lambda facts=right: up_class(
        hello={
            "protocol": 1, "agent_version": "forged", "boot_id": "forged", "facts_json": json.dumps(facts),
            "catalogue_json": json.dumps({"faults": [], "probes": []}), "epoch": 0, "revision": 0,
        }
    )
    say(what="facts that are none", **session([hello(forged)]))
    say(what="forged facts", **session([hello(right | forged)]))
    say(what="endless facts", **session([hello(right | {"os": "forged" * 100_000})]))
    say(what="facts that steer", **session([hello(right | {"os": "forged\x1b]0;x\x07\u202e\n", "kernel": "../../owned"})]))

    def report(stream, what):
        mark = f"forged in {what}"
        stamp = {"clock": {"host": own, "boot": "b"}, "bootNs": 1, "wallNs": 1, "boundNs": 0}
        body = {"kind": "halted", "by": "admin", "reason": mark, "at": stamp}
        event = {"seq": 1, "stream": stream, "body": json.dumps(body).encode()}
        return up_class(report={"outbox": f"forged-{len(what)}", "events": [event]})

    for stream, what in [
        (f"host/{other}", "host of another"), ("audit/x", "audit"), ("run/none", "run of nobody"), ("schedule/x", "schedule"),
        ("../../owned", "path"),
    ]:
        say(what=f"a report in {what}", **session([hello(), report(stream, what)], 1.0))

    say(what="a hello of 9 MB", **session([hello(right | {"x": "y" * (9 << 20)})]))
    many = [up_class(renew={"boot_ns": n, "wall_ns": n, "bound_ns": 0, "open_items": 0}) for n in range(20_000)]
    say(what="20,000 renewals at once", **session([hello(), *many], 5.0))
    wrong = [up_class(renew={"boot_ns": -(1 << 62), "wall_ns": (1 << 63) - 1, "bound_ns": -(1 << 63), "open_items": 1 << 31})]
    say(what="stamps of no time", **session([hello(), *wrong], 1.0))


claims(*sys.argv[1:])
