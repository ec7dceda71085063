#!/usr/bin/env python3
"""A small HTTP server for the download tests.

usage: http_server.py FOLDER

Serves the files of FOLDER on 127.0.0.1 and prints its port. Ends when its standard input ends. The first part of the path says how:
  /plain/F     the whole file, ranges ignored
  /range/F     honours Range: bytes=N-
  /403/F       403 Forbidden
  /wrong/F     other bytes, of the same length
  /short/F     other bytes, of another length
  /html/F      a page that says 200 OK, as hotel networks do
  /slow/F      20 bytes, then two bytes every 0.1 s; honours Range
  /cut/F       promises everything, closes the connection after half of what is left; honours Range
  /once/F      as /cut the first time, as /range afterwards
  /redirect/F  302 to /range/F
  /badrange/F  answers 206 with another range than was asked for
Each request is a line in FOLDER/requests.log: path and Range."""
import http.server
import os
import re
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cut_before = set()

    def log_message(self, *args):
        pass

    def do_GET(self):
        folder = self.server.folder
        with open(os.path.join(folder, "requests.log"), "a") as log:
            log.write("%s %s\n" % (self.path, self.headers.get("Range", "-")))
        _, mode, name = self.path.split("/", 2)
        path = os.path.join(folder, os.path.basename(name))
        if mode == "403":
            return self.send_error(403)
        if mode == "redirect":
            self.send_response(302)
            self.send_header("Location", "/range/" + name)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if mode == "html":
            return self.whole(b"<html>please sign in</html>")
        if not os.path.exists(path):
            return self.send_error(404)
        with open(path, "rb") as f:
            data = f.read()
        if mode == "wrong":
            return self.whole(bytes(b ^ 255 for b in data))
        if mode == "short":
            return self.whole(data[: len(data) // 2])
        if mode == "plain":
            return self.whole(data)
        if mode == "once":
            mode = "range" if name in self.cut_before else "cut"
            self.cut_before.add(name)
        self.partial(mode, data)

    def whole(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def partial(self, mode, data):
        asked = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        start = int(asked.group(1)) if asked else 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", "bytes */%d" % len(data))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if mode == "badrange" and asked:
            start = 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if mode == "cut":
            self.wfile.write(body[: (len(body) + 1) // 2])
            self.close_connection = True
        elif mode == "slow":
            self.wfile.write(body[:20])
            try:
                for i in range(20, len(body), 2):
                    time.sleep(0.1)
                    self.wfile.write(body[i : i + 2])
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                pass
        else:
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that go away are what this server is for


def main():
    server = Server(("127.0.0.1", 0), Handler)
    server.folder = sys.argv[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
