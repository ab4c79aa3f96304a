"""Hostile media: broken and oversized files, tricks with addresses, slow and endless servers. Each gets a 4xx with a reason in
bounded time, tells nothing about the machine, and leaves a server that answers, without memory or descriptors lost.

The server under test takes one address of this machine, that of `web`, for a public one; every other one is private as always.
"""

import base64
import collections
import concurrent.futures
import http.server
import os
import pathlib
import re
import socket
import struct
import threading
import time
import urllib.parse
import zlib

import httpx
import pytest

from conftest import ask, BASE_FLAGS, CLIENT_TIMEOUT_S, EVAL, ROOT, Server, thinking, without_cached
from png_file import png, png_chunk

PICTURE = EVAL / "media" / "describe-000-0.png"
PNG = PICTURE.read_bytes()
JPEG = (EVAL / "media" / "color_of-001-0.jpg").read_bytes()
# A refusal takes milliseconds; a sanitizer and a busy machine multiply that. What must time out is given FETCH_TIMEOUT_S more.
LIMIT_S = 30
FETCH_TIMEOUT_S = 2
RSS_GROWTH_MIB = 96
ASAN_KEEPS_MIB = 256  # freed memory that AddressSanitizer keeps out of use
VIDEO = (pathlib.Path(__file__).resolve().parents[1] / "media" / "h264.mp4").read_bytes()


# --- files -----------------------------------------------------------------------------------------------------------------------

class Bits:
    """Least significant bit first, as WebP's lossless format has them."""

    def __init__(self):
        self.value, self.count = 0, 0

    def put(self, value, bits):
        self.value |= value << self.count
        self.count += bits

    def bytes(self):
        return self.value.to_bytes((self.count + 7) // 8 + 8, "little")


def riff(*chunks):
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_lossless(width, height):
    """One colour in about 30 bytes, whatever the size: each code has one symbol, so that a pixel takes no bit."""
    bits = Bits()
    bits.put(0x2f, 8)
    bits.put(width - 1, 14)
    bits.put(height - 1, 14)
    bits.put(0, 1 + 3)  # no alpha, version
    bits.put(0, 3)      # no transform, no colour cache, no meta codes
    for _ in range(5):
        bits.put(1, 1)  # simple code
        bits.put(0, 1)  # of one symbol
        bits.put(0, 1)  # of one bit
        bits.put(0, 1)  # 0
    return riff((b"VP8L", bits.bytes()))


def webp_canvas(width, height):
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return riff((b"VP8X", b"\0\0\0\0" + size), (b"VP8L", webp_lossless(10, 10)[20:]))


def gif(width, height, frames=1):
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHH", 0, 0, width, height) + b"\0\x02\x02\x4c\x01\0"
    return head + frame * frames + b";"


def jpeg_size(width, height):
    """A picture whose frame header has been changed to this size."""
    at = next(i for i in range(2, len(JPEG)) if JPEG[i] == 0xff and JPEG[i + 1] in (0xc0, 0xc1, 0xc2))
    return JPEG[:at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9:]


def broken_crc(data):
    at = data.index(b"IDAT") + 60
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1:]


MIB = 1 << 20
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
M3U8 = b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\nhttp://127.0.0.1/secret.ts\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"
MP4_JUNK = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + b"\0\0\xff\xffmoov" + bytes(range(256))
FILES = {
    "empty": b"",
    "one byte": b"\x89",
    "PNG signature": PNG[:8],
    "PNG cut in half": PNG[:len(PNG) // 2],
    "PNG cut in its header": PNG[:20],
    "PNG with broken data": broken_crc(PNG),
    "PNG with a broken header CRC": png(10, 10, bytes(310), header_crc=0),
    "PNG 0 x 0": png(0, 0),
    "PNG 0 x 10": png(0, 10),
    "PNG 65535 x 65535": png(65535, 65535),
    "PNG 60000 x 60000 of zeros": png(60000, 60000, bytes(8 * MIB)),
    "PNG 2147483647 x 1": png(2**31 - 1, 1),
    "PNG 4294967295 x 4294967295": png(2**32 - 1, 2**32 - 1),
    "PNG 1 x 100000": png(1, 100000, bytes(400000)),
    "PNG without data": png(100, 100),
    "PNG of a depth that is none": png(10, 10, bytes(310), depth=7),
    "PNG of a colour that is none": png(10, 10, bytes(310), color=5),
    "PNG with a palette that is not there": png(10, 10, bytes(110), color=3),
    "PNG chunk of 4 GB": PNG[:8] + b"\xff\xff\xff\xffIHDR" + PNG[16:],
    "JPEG cut": JPEG[:len(JPEG) // 2],
    "JPEG header": JPEG[:20],
    "JPEG 65535 x 65535": jpeg_size(65535, 65535),
    "JPEG 0 x 0": jpeg_size(0, 0),
    "JPEG 65500 x 1": jpeg_size(65500, 1),
    "WebP 16384 x 16384 in 40 bytes": webp_lossless(16384, 16384),
    "WebP canvas of 16777216 x 16777216": webp_canvas(2**24, 2**24),
    "WebP canvas of 16777216 x 1": webp_canvas(2**24, 1),
    "WebP that ends in its header": b"RIFF\x10\0\0\0WEBPVP8 ",
    "WebP of 4 GB": b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/",
    "GIF 65535 x 65535": gif(65535, 65535),
    "GIF 0 x 0": gif(0, 0),
    "GIF header": gif(10, 10)[:13],
    "SVG": SVG,
    "text": b"hello world",
    "HTML": b"<html><body><img src=x></body></html>",
    "playlist": M3U8,
    "concat script": CONCAT,
    "MP4 junk": MP4_JUNK,
    "ELF": b"\x7fELF" + bytes(200),
    "zip": b"PK\x03\x04" + bytes(200),
    "BMP": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54 + 300, 0, 54, 40, 10, 10, 1, 24, 0, 300, 0, 0, 0, 0) + bytes(300),
}
# What these must become is either an answer or an error; in bounded time and memory all the same.
DEFINED_EITHER_WAY = {
    "PNG with more data than it has pixels": png(10, 10, bytes(64 * MIB)),
    "PNG with a compressed text of 64 MB": png(40, 40, bytes(121 * 40), extra=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * MIB), 9))),
    "PNG with a profile of 64 MB": png(40, 40, bytes(121 * 40), extra=png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * MIB), 9))),
    "PNG with 20000 chunks of text": png(40, 40, bytes(121 * 40), extra=png_chunk(b"tEXt", b"a\0b") * 20000),
    "GIF of 50000 frames": gif(40, 40, 50000),
    "PNG followed by a page": PNG + b"<html><script>alert(1)</script>",
    "1 x 1": png(1, 1, bytes(4)),
}


# --- servers ---------------------------------------------------------------------------------------------------------------------

class Habits(http.server.BaseHTTPRequestHandler):
    """Answers by path; /to?URL redirects there."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body=b"", length=None):
        self.close_connection = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data, pause_s):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.wfile.write(data)
            time.sleep(pause_s)

    def do_GET(self):
        self.server.paths[self.path.split("?")[0]] += 1
        try:
            self.route()
        except OSError:
            pass  # the other side has had enough

    def route(self):
        path, _, query = self.path.partition("?")
        image = {"Content-Type": "image/png"}
        if path == "/good.png":
            self.answer(200, image, PNG)
        elif path == "/to":
            self.answer(302, {"Location": urllib.parse.unquote(query)})
        elif path == "/loop":
            self.answer(302, {"Location": "/loop"})
        elif path == "/chain":
            self.answer(307, {"Location": f"/chain?{int(query) - 1}" if int(query) else "/good.png"})
        elif path == "/endless":
            self.answer(200, {**image, "Transfer-Encoding": "chunked"})
            self.drip(b"10000\r\n" + bytes(65536) + b"\r\n", 0)
        elif path == "/announced":
            self.answer(200, image, b"x", 10**10)
            self.drip(b"x", 0.1)
        elif path == "/slow":
            self.answer(200, image, b"", len(PNG))
            self.drip(b"x", 0.1)
        elif path == "/silent":
            time.sleep(FETCH_TIMEOUT_S * 4)
        elif path == "/short":
            self.answer(200, image, PNG[:100], len(PNG))
        elif path == "/gzip":
            self.answer(200, {**image, "Content-Encoding": "gzip"}, zlib.compress(bytes(32 * MIB), 9))
        elif path == "/type":
            self.answer(200, {"Content-Type": urllib.parse.unquote(query)}, PNG)
        elif path == "/bytes":
            self.answer(200, image, ALL_FILES[urllib.parse.unquote(query)])
        elif path == "/m3u8":
            self.answer(200, {"Content-Type": "application/vnd.apple.mpegurl"}, M3U8)
        elif path == "/status":
            self.answer(int(query), image, PNG)
        else:
            self.answer(404, {})


ALL_FILES = {**FILES, **DEFINED_EITHER_WAY}


@pytest.fixture(scope="module")
def web():
    """An HTTP server that the server under test takes for a public one."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Habits)
    server.daemon_threads = True
    server.paths = collections.Counter()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Trap:
    """A listener that nobody may connect to."""

    def __init__(self):
        self.sockets = []
        first = socket.create_server(("127.0.0.1", 0))
        self.port = first.getsockname()[1]
        self.sockets.append(first)
        try:
            self.sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        except OSError:
            pass  # no IPv6 here

    def connections(self):
        count = 0
        for s in self.sockets:
            s.settimeout(0)
            try:
                while True:
                    s.accept()[0].close()
                    count += 1
            except BlockingIOError:
                pass
        return count


@pytest.fixture(scope="module")
def trap():
    trap = Trap()
    with socket.create_connection(("127.0.0.1", trap.port)):
        pass
    assert trap.connections() == 1  # it would notice
    yield trap
    assert trap.connections() == 0
    for s in trap.sockets:
        s.close()


def fds(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def rss_mib(server, name="VmRSS"):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M).group(1)) / 1024


def growth_mib(server):
    maps = pathlib.Path(f"/proc/{server.process.pid}/maps").read_text()
    return RSS_GROWTH_MIB + (ASAN_KEEPS_MIB if "libasan" in maps else 0)


def reconnect(server):
    """One connection of the client, instead of those that earlier requests left open."""
    server.http.close()
    server.http = httpx.Client(base_url=server.url, timeout=CLIENT_TIMEOUT_S)
    check_answers(server)
    time.sleep(0.5)


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory):
    """media/ is what the server may read; everything beside it is not."""
    top = tmp_path_factory.mktemp("hostile")
    folder = top / "media"
    folder.mkdir()
    (folder / "good picture.png").write_bytes(PNG)
    (folder / "text.png").write_bytes(b"hello world")
    (top / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "passwd.png").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("..")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.png")
    with open(folder / "large.png", "wb") as f:
        f.truncate(10**11)
    return folder


@pytest.fixture(scope="module")
def target(web, media_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS", web.url.removeprefix("http://"))
        server = Server(*BASE_FLAGS, "--media-fetch-timeout", str(FETCH_TIMEOUT_S), "--allowed-local-media-path", str(media_folder),
                        "--max-waiting-requests", "64")
    assert "FASTDEPLOY_TEST_PUBLIC_ENDPOINTS" in server.log_text()
    # Buffers that stay: one of each kind of work, and the largest picture that is taken.
    for _ in range(3):
        check_answers(server)
        assert send(server, data_url(PNG)).status_code == 200
        assert send(server, web.url + "/good.png").status_code == 200
        assert send(server, data_url(VIDEO, "video/mp4"), kind="video_url").status_code == 200  # starts the program that waits
    reconnect(server)
    before_fds, before_mib = fds(server), rss_mib(server)
    yield server
    try:
        check_growth(server, before_fds, before_mib)
    finally:
        code = server.stop()
    assert code == 0, server.log_text()


def check_growth(server, before_fds, before_mib):
    reconnect(server)
    deadline = time.monotonic() + 30
    while fds(server) > before_fds and time.monotonic() < deadline:  # the server closes what a client left
        time.sleep(0.1)
    print(f"descriptors {before_fds} -> {fds(server)}, RSS {before_mib:.0f} -> {rss_mib(server):.0f} MiB, "
          f"peak {rss_mib(server, 'VmHWM'):.0f} MiB")
    assert fds(server) <= before_fds
    assert rss_mib(server) <= before_mib + growth_mib(server)


# --- checks ----------------------------------------------------------------------------------------------------------------------

def data_url(data, kind="image/png"):
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def part(url, kind="image_url"):
    return {"type": kind, kind: {"url": url}}


def send(server, *urls, kind="image_url", text="What?"):
    content = [part(url, kind) for url in urls] + [{"type": "text", "text": text}]
    return server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], "temperature": 0,
                                                          "max_tokens": 4, **thinking(False)})


def check_answers(server):
    reply = server.http.post("/v1/chat/completions", json={"messages": ask("Compute 45 + 11."), "temperature": 0, **thinking(False)})
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "56"


def check_refused(response, started, *words, limit_s=LIMIT_S):
    elapsed = time.monotonic() - started
    assert response.status_code in (400, 413, 415), response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    message = error["message"]
    assert len(message) > 10
    for word in words:
        assert word in message, message
    assert not re.search(r"\b\d+\.\d+\.\d+\.\d+\b|\[::|0x[0-9a-f]{6}", message), message
    for secret in ("passwd", "root:", "/tmp", "/dev", str(ROOT), "secret"):
        assert secret not in message, message
    assert elapsed < limit_s
    return message


def attack(server, url, *words, kind="image_url", limit_s=LIMIT_S):
    """The URL is refused with these words, and the server answers a question afterwards."""
    started = time.monotonic()
    message = check_refused(send(server, url, kind=kind), started, *words, limit_s=limit_s)
    check_answers(server)
    return message


# --- files that are broken, too large or something else --------------------------------------------------------------------------

@pytest.mark.parametrize("name", FILES)
def test_broken_files(target, name):
    attack(target, data_url(FILES[name]))


@pytest.mark.parametrize("name", ["PNG cut in half", "PNG 60000 x 60000 of zeros", "WebP 16384 x 16384 in 40 bytes", "text", "SVG", "playlist"])
def test_broken_files_that_are_fetched(target, web, name):
    attack(target, web.url + "/bytes?" + urllib.parse.quote(name))


@pytest.mark.parametrize("name", DEFINED_EITHER_WAY)
def test_files_with_ballast(target, name):
    before = rss_mib(target)
    started = time.monotonic()
    response = send(target, data_url(DEFINED_EITHER_WAY[name]))
    if response.status_code != 200:
        check_refused(response, started)
    assert time.monotonic() - started < LIMIT_S
    assert rss_mib(target) < before + growth_mib(target)
    check_answers(target)


def test_bombs_take_no_memory(start_server):
    """The highest memory of a server that is sent nothing else stays near its beginning."""
    server = start_server(*BASE_FLAGS)
    assert send(server, data_url(PNG)).status_code == 200
    before = rss_mib(server, "VmHWM")
    for name in ("PNG 65535 x 65535", "PNG 60000 x 60000 of zeros", "WebP 16384 x 16384 in 40 bytes", "JPEG 65535 x 65535",
                 "GIF 65535 x 65535", "WebP canvas of 16777216 x 16777216"):
        attack(server, data_url(FILES[name]))
    assert rss_mib(server, "VmHWM") < before + 16


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/webp", "IMAGE/GIF", "application/octet-stream", ""])
def test_the_bytes_decide_and_not_the_type(target, kind):
    good = send(target, data_url(PNG, kind))
    assert good.status_code == 200, good.text
    assert good.json()["choices"][0]["message"] == send(target, data_url(PNG)).json()["choices"][0]["message"]
    attack(target, data_url(b"hello world", kind))


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "image/svg+xml", "application/json", "application/x-mpegURL", "audio/wav"])
def test_types_that_are_no_media(target, kind):
    attack(target, data_url(PNG, kind), kind.lower())


@pytest.mark.parametrize("url", ["data:image/png;base64,@@@@", "data:image/png;base64,iVBORw0KGgo", "data:image/png;base64,AAA",
                                 "data:image/png;base64," + "A" * 100001, "data:image/png;base64,iVBO,iVBO", "data:image/png;base64,%",
                                 "data:image/png;base64", "data:image/png,%zz", "data:" + "x" * 5000, "data:,"])
def test_base64_junk(target, url):
    assert "A" * 100 not in attack(target, url)


# --- schemes and addresses -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["image_url", "video_url"])
@pytest.mark.parametrize("url", ["", " ", "/etc/passwd", "../../etc/passwd", "concat:/etc/passwd|/etc/hosts", "ftp://example.com/a.png",
                                 "gopher://example.com/a", "jar:http://example.com/a!/b", "javascript:alert(1)", "blob:x", "pipe:0",
                                 "subfile,,start,0,end,100,,:/etc/passwd", "hls+http://example.com/a.m3u8", "crypto:/etc/passwd",
                                 "C:\\Windows\\win.ini", "\\\\host\\share\\a.png", "http:", "http://", "https:///etc/passwd", "data"])
def test_schemes(target, url, kind):
    attack(target, url, kind=kind)


@pytest.mark.parametrize("kind", ["image_url", "video_url"])
def test_private_addresses_are_not_dialled(target, trap, kind):
    port = trap.port
    hosts = ["127.0.0.1", "localhost", "LOCALHOST.", "127.1", "127.0.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "0.0.0.0", "[::1]", "[::]",
             "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "good.example@127.0.0.1",
             "good.example\\@127.0.0.1", "good.example#@127.0.0.1", "127.0.0.1\t", "127.0.0.1%00", "%31%32%37.0.0.1",
             "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021", "localhost\u3002"]
    for host in hosts:
        for scheme in ("http", "https"):
            url = f"{scheme}://{host}:{port}/a.png"
            started = time.monotonic()
            check_refused(send(target, url, kind=kind), started)
    for host in ("169.254.169.254", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "[fd00:ec2::254]", "[fe80::1]", "224.0.0.1"):
        started = time.monotonic()
        check_refused(send(target, f"http://{host}/latest/meta-data/", kind=kind), started, limit_s=LIMIT_S)
    own = target.url.rsplit(":", 1)[1]
    started = time.monotonic()
    check_refused(send(target, f"http://127.0.0.1:{own}/metrics", kind=kind), started)
    assert trap.connections() == 0
    check_answers(target)


def test_ports_of_other_services(target):
    for port in (21, 22, 25, 53, 110, 143, 445, 587):
        attack(target, f"http://example.com:{port}/a.png", f"port {port}")


# --- what servers do -------------------------------------------------------------------------------------------------------------

def test_a_picture_is_fetched(target, web):
    by_url = send(target, web.url + "/good.png", text="What is in the picture?")
    by_data = send(target, data_url(PNG), text="What is in the picture?")
    assert by_url.status_code == 200, by_url.text
    assert by_url.json()["choices"][0]["message"] == by_data.json()["choices"][0]["message"]
    assert without_cached(by_url.json()["usage"]) == without_cached(by_data.json()["usage"])
    assert send(target, web.url + "/chain?2").status_code == 200


@pytest.mark.parametrize("place", ["http://127.0.0.1:{trap}/a.png", "http://localhost:{trap}/a.png", "http://[::1]:{trap}/a.png",
                                   "http://2130706433:{trap}/a.png", "http://x@127.0.0.1:{trap}/", "//127.0.0.1:{trap}/a.png",
                                   "http:\\\\127.0.0.1:{trap}/", "https://127.0.0.1:{trap}/", "http://169.254.169.254/latest/",
                                   "file:///etc/passwd", "file://{folder}/good%20picture.png", "ftp://127.0.0.1:{trap}/",
                                   "gopher://127.0.0.1:{trap}/_x", "data:image/png;base64,aGVsbG8=", "javascript:1"])
def test_redirects_to_what_is_not_allowed(target, web, trap, media_folder, place):
    place = place.format(trap=trap.port, folder=media_folder)
    attack(target, web.url + "/to?" + urllib.parse.quote(place, safe=""), "after 1 redirect")
    attack(target, web.url + "/to?" + urllib.parse.quote(web.url + "/to?" + urllib.parse.quote(place, safe=""), safe=""), "after 2 redirects")
    assert trap.connections() == 0


def test_redirects_without_end(target, web):
    before = web.paths["/loop"]
    attack(target, web.url + "/loop", "--media-max-redirects", "3")
    assert web.paths["/loop"] == before + 4
    attack(target, web.url + "/chain?3", "--media-max-redirects", "3")  # the fourth would be the picture


def test_bodies_without_end(target, web):
    before = rss_mib(target)
    attack(target, web.url + "/endless", "--max-image-bytes", limit_s=LIMIT_S)
    attack(target, web.url + "/announced", "10000000000", "--max-image-bytes")
    assert rss_mib(target) < before + growth_mib(target)


@pytest.mark.parametrize("path", ["/slow", "/silent"])
def test_slow_servers(target, web, path):
    attack(target, web.url + path, "--media-fetch-timeout", "2 s", limit_s=LIMIT_S + FETCH_TIMEOUT_S)


def test_many_slow_servers_at_once(target, web):
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: send(target, web.url + "/slow"), range(8)))
    for reply in replies:
        check_refused(reply, started, "--media-fetch-timeout", limit_s=LIMIT_S + 8 * FETCH_TIMEOUT_S)
    check_answers(target)


@pytest.mark.parametrize("path, words", [
    ("/short", ["closed the connection", "100"]), ("/gzip", ["content-encoding"]), ("/type?text/html", ["text/html"]),
    ("/type?application/json", ["application/json"]), ("/type?image/svg%2Bxml", ["image/svg+xml"]), ("/m3u8", ["playlist"]),
    ("/type?audio/mpegurl", ["playlist"]), ("/status?404", ["404"]), ("/status?403", ["403"]), ("/status?500", ["500"]),
    ("/status?206", ["206"]), ("/nothing", ["404"])])
def test_answers_that_are_no_picture(target, web, path, words):
    attack(target, web.url + path, *words)


def test_links_in_text_are_not_fetched(target, web, trap):
    before = sum(web.paths.values())
    text = (f"![a]({web.url}/good.png) <img src=\"{web.url}/good.png\"> {web.url}/good.png [x]: {web.url}/good.png "
            f"![b](http://127.0.0.1:{trap.port}/a.png) ![c](file:///etc/passwd) data:image/png;base64,aGVsbG8=")
    for content in (text, [{"type": "text", "text": text}]):
        reply = target.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], "max_tokens": 2})
        assert reply.status_code == 200, reply.text
    assert target.http.post("/v1/completions", json={"prompt": text, "max_tokens": 2}).status_code == 200
    assert sum(web.paths.values()) == before
    assert trap.connections() == 0


# --- files of the server ---------------------------------------------------------------------------------------------------------

def test_files_of_the_allowed_folder(target, media_folder):
    url = "file://" + urllib.parse.quote(str(media_folder / "good picture.png"))
    by_file = send(target, url)
    assert by_file.status_code == 200, by_file.text
    assert by_file.json()["choices"][0]["message"] == send(target, data_url(PNG)).json()["choices"][0]["message"]
    assert send(target, url.replace("file://", "file://localhost")).status_code == 200


@pytest.mark.parametrize("kind", ["image_url", "video_url"])
def test_files_outside_sound_the_same_whether_they_exist(target, media_folder, kind):
    messages = set()
    for path in (media_folder.parent / "secret.png", media_folder.parent / "nothing.png", "/etc/passwd", "/etc/nothing", "/dev/zero", "/",
                 "/proc/self/environ", media_folder, media_folder / "nothing.png", media_folder / "link.png", media_folder / "passwd.png",
                 media_folder / "up/secret.png", media_folder / "zero.png", media_folder / "fifo.png", str(media_folder) + "2/secret.png"):
        messages.add(attack(target, f"file://{path}", kind=kind))
    assert len(messages) == 1
    for path in (f"{media_folder}/../secret.png", f"{media_folder}/%2e%2e/secret.png", f"{media_folder}/..%2fsecret.png"):
        attack(target, f"file://{path}", kind=kind)
    attack(target, f"file://other.example{media_folder}/good%20picture.png", kind=kind)
    attack(target, "file:relative.png", kind=kind)


def test_files_that_are_no_pictures(target, media_folder):
    attack(target, f"file://{media_folder}/text.png")
    attack(target, f"file://{media_folder}/large.png", "100000000000", "--max-image-bytes")


# --- videos ----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, kind", [("playlist", "video/mp4"), ("playlist", "application/vnd.apple.mpegurl"), ("concat script", "video/mp4"),
                                        ("concat script", "text/plain"), ("MP4 junk", "video/mp4"), ("SVG", "video/mp4"), ("text", "video/webm"),
                                        ("empty", "video/mp4"), ("ELF", "video/mp4"), ("GIF 65535 x 65535", "image/gif"),
                                        ("WebP canvas of 16777216 x 16777216", "image/webp"), ("GIF header", "image/gif")])
def test_videos(target, web, trap, name, kind):
    data = FILES[name].replace(b"http://127.0.0.1/", b"http://127.0.0.1:%d/" % trap.port)
    attack(target, data_url(data, kind), kind="video_url")
    assert trap.connections() == 0


@pytest.mark.parametrize("path", ["/m3u8", "/endless", "/slow", "/loop", "/type?text/html", "/short"])
def test_videos_that_are_fetched(target, web, path):
    attack(target, web.url + path, kind="video_url", limit_s=2 * LIMIT_S + FETCH_TIMEOUT_S)


# --- many ------------------------------------------------------------------------------------------------------------------------

def test_ten_thousand_pictures(target, web):
    before = sum(web.paths.values())
    for url in (data_url(png(1, 1, bytes(4))), web.url + "/good.png", "data:,"):
        started = time.monotonic()
        response = send(target, *[url] * 10000)
        check_refused(response, started, "100", "--limit-mm-per-prompt")
    assert sum(web.paths.values()) == before
    check_answers(target)


def test_one_bad_picture_among_good_ones_is_named(target):
    urls = [data_url(PNG)] * 3 + [data_url(b"hello world")] + [data_url(PNG)] * 3
    started = time.monotonic()
    message = check_refused(send(target, *urls), started)
    assert "messages[0].content[3]" in message, message
    check_answers(target)


# --- other policies --------------------------------------------------------------------------------------------------------------

def test_no_fetch_and_no_files(start_server, web, monkeypatch):
    monkeypatch.setenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS", web.url.removeprefix("http://"))
    server = start_server("--no-media-fetch")
    before = sum(web.paths.values())
    attack(server, web.url + "/good.png", "--no-media-fetch")
    attack(server, "https://example.com/a.png", "--no-media-fetch")
    attack(server, "file:///etc/passwd", "--allowed-local-media-path")
    assert sum(web.paths.values()) == before
    assert send(server, data_url(PNG)).status_code == 200


def test_allowed_domains(start_server, web, monkeypatch):
    monkeypatch.setenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS", web.url.removeprefix("http://"))
    server = start_server("--allowed-media-domains", "localhost,*.example.org")
    assert send(server, web.url.replace("127.0.0.1", "localhost") + "/good.png").status_code == 200
    attack(server, web.url + "/good.png", "--allowed-media-domains")
    attack(server, "https://example.org/a.png", "--allowed-media-domains")
    place = urllib.parse.quote(web.url + "/good.png", safe="")
    attack(server, web.url.replace("127.0.0.1", "localhost") + "/to?" + place, "after 1 redirect", "--allowed-media-domains")
