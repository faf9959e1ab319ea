#!/usr/bin/env python3
"""Checks this export without Fracas: every chain, what was closed or pruned, readings, reports, and the signed heads."""
import hashlib, json, os, subprocess, sys, tempfile

here, wrong, unchecked = os.path.dirname(os.path.abspath(__file__)), [], []
path = lambda name: os.path.join(here, name)
lines = lambda name: [json.loads(line) for line in open(path(name), encoding="utf-8")]
sha256 = lambda data: hashlib.sha256(data).hexdigest()
chains, closed, gone, records = {}, {}, [], 0
for entry in lines("streams.jsonl"):
    head, *rest = lines(entry["file"])
    name, seq, last = head["stream"], head["after"], head["hash"]
    if name != entry["stream"] or (seq == 0 and last != sha256(name.encode())):
        wrong.append(f"{name}: it does not begin like that stream")
    chain = chains[name] = {"base": (seq, last), "hashes": {seq: last}}
    for record in rest:
        stored, seq = record["stored"].encode(), seq + 1
        event, last = json.loads(stored), sha256(bytes.fromhex(last) + stored)
        if (record["seq"], record["hash"], event["seq"], event["stream"]) != (seq, last, seq, name):
            wrong.append(f"{name} record {seq}: it does not follow from the one before it")
            break
        chain["hashes"][seq], body, records = last, event["body"], records + 1
        if body["kind"] in ("readingsSealed", "reportSealed"):
            blob = path(os.path.join("blobs", os.path.basename(body["digest"])))
            if not os.path.exists(blob) or sha256(open(blob, "rb").read()) != body["digest"]:
                wrong.append(f"{name} record {seq}: {body['kind']}, and its bytes are missing or changed")
        if name.startswith("audit/") and body["kind"] == "streamClosed":
            closed[body["stream"]] = (body["seq"], body["hash"])
        if name.startswith("audit/") and body["kind"] == "pruned":
            gone += [(one["stream"], one["seq"], one["hash"]) for one in body["gone"]]
    chain["last"] = (seq, last)
whole = json.load(open(path("manifest.json"), encoding="utf-8"))["sinceWallNs"] is None
for name, chain in chains.items():
    if chain["base"][0] and (name, *chain["base"]) not in gone:
        wrong.append(f"{name}: its beginning is gone, and no prune of it is recorded")
    if name in closed and chain["last"] != closed[name]:
        wrong.append(f"{name}: it does not end as the audit stream says")
for name, end in closed.items():
    if whole and name not in chains and (name, *end) not in gone:
        wrong.append(f"{name}: it is gone, and no prune of it is recorded")
heads = [head for name in ["heads.jsonl", *sys.argv[1:]] for head in lines(name)]
for head in heads:
    what = f"signed head {head['seq']} of {head['stream']}"
    if chains.get(head["stream"], {"hashes": {}})["hashes"].get(head["seq"]) != head["hash"]:
        wrong.append(f"{what}: it is not of this history")
    with tempfile.TemporaryDirectory() as folder:
        text, signature = os.path.join(folder, "text"), os.path.join(folder, "signature")
        fields = ["fracas head 1", head["stream"], head["seq"], head["hash"], head["wallNs"]]
        open(text, "w").write("".join(f"{field}\n" for field in fields))
        open(signature, "wb").write(bytes.fromhex(head["signature"]))
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", path("audit.pem"), "-rawin", "-in", text]
        try:
            if subprocess.run(command + ["-sigfile", signature], capture_output=True).returncode:
                wrong.append(f"{what}: its signature does not hold")
        except FileNotFoundError:
            unchecked.append(what)
for line in wrong:
    print("BROKEN:", line)
if unchecked:
    print(f"openssl is not here: {len(unchecked)} signatures were not checked")
print(f"{records} records in {len(chains)} streams, {len(heads)} signed heads: {'BROKEN' if wrong else 'whole'}")
sys.exit(1 if wrong else 0)
