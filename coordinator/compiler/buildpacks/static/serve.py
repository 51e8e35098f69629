"""Serves a directory of files on 0.0.0.0:$PORT, as static.json says.

Files and directories whose name starts with a dot are not served (but for
.well-known, RFC 8615), and no directory is ever listed. SIGTERM ends it when the open requests are answered.
"""

import http
import http.server
import json
import os
import signal
import sys
import threading
import urllib.parse


def settings():
    """Reads static.json, and finds the root where it does not name one."""
    config = {}
    if os.path.exists("static.json"):
        with open("static.json", encoding="utf-8") as f:
            config = json.load(f)
        if not isinstance(config, dict):
            raise ValueError("static.json must hold an object")
    root = config.get("root")
    if root is None:
        root = next((d for d in ("public", "dist") if os.path.exists(d + "/index.html")), ".")
    base = os.path.realpath(".")
    root = os.path.realpath(str(root))
    if root != base and not root.startswith(base + os.sep):
        raise ValueError("static.json: root leads out of the app")
    if not os.path.isdir(root):
        raise ValueError("static.json: root is not a directory: " + root)
    return root, config


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "static"
    timeout = 20  # seconds an idle connection may stay
    config = {}

    def send_head(self):
        path = self.find(urllib.parse.urlsplit(self.path).path)
        if path is None:
            self.send_error(http.HTTPStatus.NOT_FOUND)
            return None
        self.path = path
        return super().send_head()

    def find(self, url):
        """Returns the URL path of the file to send, or None."""
        names = urllib.parse.unquote(url, errors="surrogateescape").split("/")
        if any("\0" in n or n.startswith(".") and n != ".well-known" for n in names):
            return None
        local = self.translate_path(url)
        if os.path.isdir(local):
            if not url.endswith("/"):
                return url  # answered with a redirect to url + "/"
            if os.path.isfile(os.path.join(local, "index.html")):
                return url
        elif os.path.isfile(local):
            return url
        elif self.config.get("clean_urls") and os.path.isfile(local + ".html"):
            return url + ".html"
        routes = self.config.get("routes")
        target = routes.get("/**") if isinstance(routes, dict) else None
        return "/" + str(target).lstrip("/") if target else None

    def list_directory(self, path):
        self.send_error(http.HTTPStatus.NOT_FOUND)

    def send_error(self, code, message=None, explain=None):
        page = self.config.get("error_page")
        if code != http.HTTPStatus.NOT_FOUND or not page:
            return super().send_error(code, message, explain)
        try:
            with open(self.translate_path("/" + str(page)), "rb") as f:
                body = f.read()
        except OSError:
            return super().send_error(code, message, explain)
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass  # the router's line says it all


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them
    request_queue_size = 128


def main():
    try:
        root, Handler.config = settings()
    except (ValueError, OSError) as e:
        sys.exit(" !     %s" % e)
    if sys.argv[1:] == ["--check"]:
        print(os.path.relpath(root))
        return
    os.chdir(root)
    with Server(("0.0.0.0", int(os.environ["PORT"])), Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


main()
