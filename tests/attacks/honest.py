"""An honest operator meanwhile, who calls again and again: on a connection that is open, and on a new one each time.

`FRONT CA TOKEN ADMIN-TOKEN SECONDS`
"""

import time


def figures(samples):
    samples.sort()
    at = lambda share: samples[min(len(samples) - 1, int(share * len(samples)))] if samples else None
    return {"n": len(samples), "p50": at(0.5), "p99": at(0.99), "max": samples[-1] if samples else None}


def honest(front, ca, token, admin, seconds):
    admin, token = read(admin).decode().strip(), read(token).decode().strip()
    kept = channel(front, ca)
    interface = Interface(kept, admin)
    method = interface.service("fracas.v1.Operator").FindMethodByName("ListHosts")
    request = interface.filled(method, {})
    samples, end, failed = {"open": [], "new": []}, time.monotonic() + float(seconds), []
    while time.monotonic() < end:
        for kind in samples:
            way, began = kept if kind == "open" else channel(front, ca, fresh=True), time.monotonic()
            status, said = code(lambda: interface.call(way, method, request, bearer(token)))
            samples[kind].append((time.monotonic() - began) * 1000)
            if status != "OK":
                failed.append(f"{kind}: {status}: {said}")
            if kind == "new":
                way.close()
    say(failed=failed[:10], failures=len(failed), **{kind: figures(all_of_it) for kind, all_of_it in samples.items()})


honest(*sys.argv[1:])
