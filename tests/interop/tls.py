"""A server with TLS that wants a name and a password, and hands what it is asked on: tls.py CERT KEY PORT-FILE NAME:PASSWORD URL"""

import base64
import http.server
import ssl
import sys
import urllib.error
import urllib.request

certificate, key, port_file, login, url = sys.argv[1:]
wanted = "Basic " + base64.b64encode(login.encode()).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("authorization") != wanted:
            return self.answer(401, b'{"error_code": 401, "message": "who are you?"}')
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else None
        headers = {"content-type": self.headers["content-type"]} if body else {}
        request = urllib.request.Request(url + self.path, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as response:
                self.answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())

    do_POST = do_GET

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(port_file, "w") as file:
    file.write(f"{server.server_port}\n")
server.serve_forever()
