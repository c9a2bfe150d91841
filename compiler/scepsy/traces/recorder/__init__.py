"""The recorder: an HTTP/1.1 proxy that forwards LLM calls byte for byte and writes one line per call.

    client ── connection ── requests ── client_session ── forwarding ── connection_pool ── connection ── server
                                              │
              llm_request, prompt, responses, usage ── call_recorder ── trace_file

Of a request only the value of the Host header changes. `start` is when its first byte arrived, `end` when the last byte
of the response was forwarded: the call as its agent sees it. Headers are read and never stored.
"""

from scepsy.traces.recorder.call_recorder import Summary
from scepsy.traces.recorder.endpoints import Address, parse_listen, parse_upstreams
from scepsy.traces.recorder.proxy import Recorder, Settings, record

__all__ = ["Address", "Recorder", "Settings", "Summary", "parse_listen", "parse_upstreams", "record"]
