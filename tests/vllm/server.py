"""vLLM servers with a model of a few thousand random weights, and what they count by themselves."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.processes import Processes, free_ports

KEY = "sk-of-the-tests"
"""What the servers ask for; it must not turn up in a trace."""
CONTEXT = 2048

# One character is one token, so that a prompt's length can be seen; all of ASCII, so that any output is text.
ALPHABET = ["\u0120" if character == " " else character for character in map(chr, range(32, 127))] + ["\u010a"]
SPECIAL = ["<bos>", "<eos>", "<pad>"]
VOCABULARY = [*SPECIAL, *ALPHABET]
CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"

# vLLM's engines outlive a server that is killed: where pytest itself is killed, this ends all of its group.
KEEPER = ("sh", "-c", '(while kill -0 "$0" 2>&-; do sleep 1; done; kill -KILL 0) & exec "$@"')
# Elsewhere servers have machines of their own: here they leave the processor to agents and the recorder.
POLITE = ("nice", "-n", "19")

# Answers of the metrics endpoint come from this machine, whatever proxy it uses for others.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SAMPLE = re.compile(r"^(?P<name>[\w:]+)(?:\{.*\})? (?P<value>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Counters:
    """What a server says that it has done.

    Attributes:
        completed: requests that ended by themselves, not those that a client gave up.
        input: prompt tokens.
        output: generated tokens.
        cached: prompt tokens that the prefix cache held.
    """

    completed: int
    input: int
    output: int
    cached: int

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(
            self.completed - earlier.completed,
            self.input - earlier.input,
            self.output - earlier.output,
            self.cached - earlier.cached,
        )


class VllmServer:
    """`vllm serve` under a name.

    Args:
        name: the LLM's name, which clients send as `model`.
        processes: where it runs.
        python: the Python of the environment with vLLM.
        model: the model's folder.
        options: more options of `vllm serve`.
        polite: whether it leaves the processor to others.
    """

    def __init__(
        self, name: str, processes: VllmProcesses, python: Path, model: Path, *options: str, polite: bool = True
    ) -> None:
        self.name = name
        self._prefix = POLITE if polite else ()
        self._processes = processes
        self._options = options
        self._python = python
        self._model = model
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, unless it runs already; `wait` says when it answers."""
        if self._processes.runs(self.name):
            return
        (self.port,) = free_ports(1)
        command = [self._python, "-m", "vllm.entrypoints.cli.main", "serve", self._model]
        options = {
            "--served-model-name": self.name,
            "--load-format": "dummy",  # random weights: nothing is read, nothing is downloaded
            "--dtype": "bfloat16",
            "--max-model-len": CONTEXT,
            "--max-num-seqs": 16,
            "--kv-cache-memory-bytes": 64 << 20,
            "--host": "127.0.0.1",
            "--port": self.port,
            "--api-key": KEY,
        }
        words = [str(word) for option in options.items() for word in option]
        home = self._processes.logs
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(home / "huggingface"),
            "VLLM_CACHE_ROOT": str(home / "cache"),
            "VLLM_CONFIG_ROOT": str(home / "config"),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            # Bound to one core each, all servers would share the first.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
        }
        words += ["--enforce-eager", *self._options]
        self._processes.start(self.name, *KEEPER, os.getpid(), *self._prefix, *command, *words, environment=environment)

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ProgramEnded: it has ended instead; with the end of its log.
        """
        self._processes.ready(self.name, lambda: self._get("/health") is not None, within=400)

    def kill(self) -> None:
        """End it as a machine that fails ends it: at once, with all that it is doing."""
        self._processes.kill(self.name)

    def counters(self) -> Counters:
        """Return what it has counted, once that has not changed for a while.

        Its counters are updated after its answers are sent, and a request that a client gave up runs on for a moment.
        """
        before = self._read()
        since = time.monotonic()
        while time.monotonic() - since < 1:
            time.sleep(0.1)
            now = self._read()
            if now != before:
                before, since = now, time.monotonic()
        return before

    def _read(self) -> Counters:
        totals: dict[str, float] = {}
        for sample in _SAMPLE.finditer(self._get("/metrics")):
            totals[sample["name"]] = totals.get(sample["name"], 0) + float(sample["value"])
        return Counters(
            int(totals["vllm:request_success_total"]),
            int(totals["vllm:prompt_tokens_total"]),
            int(totals["vllm:generation_tokens_total"]),
            int(totals["vllm:prompt_tokens_cached_total"]),
        )

    def _get(self, path: str) -> str:
        with _DIRECT.open(f"{self.url}{path}", timeout=10) as answer:
            return answer.read().decode("utf-8")


class VllmProcesses(Processes):
    """Processes that can be killed without a goodbye."""

    def runs(self, name: str) -> bool:
        """Tell whether one of them runs."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def kill(self, name: str) -> None:
        """Kill a process and its children."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(servers: Sequence[VllmServer]) -> None:
    """Start those that do not run, side by side, and wait until all answer."""
    for server in servers:
        server.start()
    for server in servers:
        server.wait()


def write_model(directory: Path, size: int = 1) -> Path:
    """Write a model into a folder: its shape and its tokenizer; weights it has none.

    Args:
        directory: the folder.
        size: how many times as wide and as deep as the smallest.
    """
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 64 * size,
            "intermediate_size": 128 * size,
            "num_hidden_layers": 2 * size,
            "num_attention_heads": 2 * size,
            "num_key_value_heads": 2 * size,
            "head_dim": 32,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": CONTEXT,
            "vocab_size": len(VOCABULARY),
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        },
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT,
        },
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [
                {
                    "id": number,
                    "content": text,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for number, text in enumerate(SPECIAL)
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "vocab": {text: number for number, text in enumerate(VOCABULARY)},
                "merges": [],
            },
        },
    }
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    return directory
