"""A collector of OTLP logs over HTTPS with client certificates, by the messages that OpenTelemetry publishes (opentelemetry-proto).

Arguments: certificate, key, and roots of clients as PEM files; the file to which each record goes as a line of JSON. It says its port. It
refuses the first request as if it were overloaded, and any with more than 300 records as too large.
"""

import http.server
import json
import ssl
import sys

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

certificate, key, roots, out = sys.argv[1:5]
log = open(out, "a", encoding="utf-8")
refused = False


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "kvlist_value":
        return {pair.key: value(pair.value) for pair in any_value.kvlist_value.values}
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return getattr(any_value, kind)


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global refused
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/logs", self.path
        assert self.headers["Content-Type"] == "application/x-protobuf"
        request = ExportLogsServiceRequest.FromString(body)
        records = [
            (resource, record)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        if not refused:
            refused = True
            return self.answer(503)
        if len(records) > 300:
            return self.answer(413)
        for resource, record in records:
            line = {
                "resource": {pair.key: value(pair.value) for pair in resource.resource.attributes},
                "attributes": {pair.key: value(pair.value) for pair in record.attributes},
                "body": value(record.body),
                "severity": record.severity_number,
                "time": record.time_unix_nano,
                "observed": record.observed_time_unix_nano,
                "name": record.event_name,
            }
            log.write(json.dumps(line) + "\n")
        log.flush()
        self.answer(200)

    def answer(self, status):
        body = ExportLogsServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(certificate, key)
context.load_verify_locations(roots)
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
