"""Every method of the operators' service, as reflection tells them, tried by somebody who may not.

`certificate FRONT FLEET CA ADMIN-TOKEN KEY CERT`: with a host's certificate, at both listeners.
`elsewhere FRONT CA ADMIN-TOKEN TOKEN KNOWN`: with a token that is good in another environment. KNOWN is JSON: values of
request fields by name, or by METHOD.FIELD.
"""


def certificate(front, fleet, ca, admin, key, cert):
    interface = Interface(channel(front, ca), read(admin).decode().strip())
    doors = {"front": channel(front, ca, key, cert), "fleet": channel(fleet, ca, key, cert)}
    for method in interface.service("fracas.v1.Operator").methods:
        request = interface.filled(method, {"reason": "x", "run": "last", "person": "admin"})
        told = {door: code(lambda: interface.call(way, method, request))[0] for door, way in doors.items()}
        say(method=method.name, **told)


def elsewhere(front, ca, admin, token, known):
    interface = Interface(channel(front, ca), read(admin).decode().strip())
    known, way = json.loads(known), channel(front, ca, fresh=True)
    for method in interface.service("fracas.v1.Operator").methods:
        if method.name in ("Halt", "StopRun"):
            # Whoever is signed in may end harm.
            continue
        request = interface.filled(method, known)
        status, said = code(lambda: interface.call(way, method, request, bearer(token)))
        fields = [field.name for field, _ in request.ListFields()]
        say(method=method.name, status=status, said=said[:100_000], fields=fields)


{"certificate": certificate, "elsewhere": elsewhere}[sys.argv[1]](*sys.argv[2:])
