"""A server on the loopback interface, for guests to fetch from (they know it as 10.0.2.2)."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from typing import Any


def serve(content: Callable[[str], bytes]) -> int:
    """Serve what a function says of each path, until the process ends; returns the port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = content(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)
