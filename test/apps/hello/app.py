"""The smallest web app: it says which dyno of which release answered."""
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        env = os.environ.get
        body = (
            f"Hello from {env('DYNO', '?')}, release {env('HEROKU_RELEASE_VERSION', '?')}.\n"
            f"You asked for {self.path} at {self.headers.get('Host', '?')}.\n"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Hello).serve_forever()
