#!/usr/bin/env python3
"""Serves a folder as a proxy would serve http://models.test, with ranges; prints its address."""

import http.server
import pathlib
import sys
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        file = pathlib.Path(sys.argv[1], urllib.parse.urlsplit(self.path).path.lstrip("/"))
        body = file.read_bytes() if file.is_file() else None
        if body is None:
            return self.send(404, b"")
        start, end = 0, len(body)
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
            return self.send(206, body[start:end], f"bytes {start}-{end - 1}/{len(body)}")
        self.send(200, body)

    do_HEAD = do_GET

    def send(self, status, body, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
