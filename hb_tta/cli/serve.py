"""``hb-tta serve``: an OpenAI-compatible endpoint whose answers are taken over views."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta import spelling
from hb_tta.device import check_device
from hb_tta.errors import UserError, visible
from hb_tta.reading import read_text, user_path
from hb_tta.settings import by_name, settings_table

if TYPE_CHECKING:
    from hb_tta.serve.asking import Backend
    from hb_tta.serve.limits import Limits

KEY, THEIR_KEY = "HB_TTA_SERVE_KEY", "HB_TTA_MODEL_KEY"
"""Environment variables: of the key that clients must have, and of one that --model asks for."""

DESCRIPTION = """\
Serves a model at /v1/chat/completions, as OpenAI's clients ask for it, and answers from views
of the images as well. The response has a field hb_tta with the description, the candidates
and their scores, and what each view says; at / a page shows all that.

Images come as data: addresses; remote ones are fetched from hosts named by --allow-host
alone, and never from a private network. What is made is kept nowhere, unless
--augment_args store=DIR says where. SIGTERM stops the server when what it took is answered."""

EXAMPLES = """\
examples:
  hb-tta serve --model llava-hf/llava-v1.6-mistral-7b-hf --augment hummingbird
  hb-tta serve --model http://gpu:8000/v1 --augment jitter --augment_args n=4
  hb-tta serve --model DIR --host 0.0.0.0 --key-file key.txt --limits images=2,seconds=60"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta serve --model DIR|ID|URL [options]"
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.set_defaults(notes=_notes)
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR|ID|URL",
        help="who answers: a folder or hub id in transformers' layout, or the address of another "
        f"OpenAI-compatible endpoint, up to /v1 (its key in ${THEIR_KEY})",
    )
    parser.add_argument(
        "--name", help="of the model, for clients; of an endpoint's, its own (default: its own)"
    )
    parser.add_argument(
        "--augment", default="hummingbird", metavar="METHOD",
        help="of the views, see `hb-tta list`; none: none (default: hummingbird)",
    )  # fmt: skip
    parser.add_argument(
        spelling.ARGS,
        default="",
        metavar="KEY=VALUE,…",
        help="which views and how answers are combined, as for lmms-eval: key=value,…, a JSON "
        "object, or @file.json",
    )
    parser.add_argument(
        spelling.ARGS.replace("_", "-"), dest="augment_args", help=argparse.SUPPRESS
    )
    parser.add_argument("--device", type=spelling.argument(spelling.device), help="of the models")
    parser.add_argument(
        "--dtype", type=spelling.argument(spelling.dtype), help="numbers of the model that answers"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, local)"
    )
    parser.add_argument(
        "--port", type=spelling.argument(_port), default=8000, help="0: a free one (default: 8000)"
    )
    parser.add_argument(
        "--key-file", metavar="FILE",
        help=f"holds the key that clients must have, needed with another host (or ${KEY})",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME[:PORT]",
        help="a host from which images may be fetched; may be repeated (default: none)",
    )
    parser.add_argument(
        "--limits", default="", metavar="KEY=VALUE,…", help="what a client may ask for, see below"
    )


def run(arguments: argparse.Namespace) -> int:
    """Load the model and serve it until a signal."""
    from hb_tta.serve.access import Access
    from hb_tta.serve.limits import Limits
    from hb_tta.serve.offer import Offer
    from hb_tta.serve.server import Serving, address_of, listen, run
    from hb_tta.store import open_store

    check_extra()
    limits = Limits.parse(arguments.limits)
    access = Access(arguments.host, _key(arguments.key_file))
    asked = by_name(arguments.augment_args)
    folder = asked.pop("store", None)
    store = None if folder in (None, "none") else open_store(folder)
    with listen(arguments.host, arguments.port) as listening:
        backend = _backend(arguments, limits)
        offer = Offer(arguments.augment, asked, limits, backend.combines, arguments.device)
        serving = Serving(backend, offer, access, limits, arguments.allow_host, store)
        place = address_of(listening)
        line = f"serving {visible(backend.names[0])} at {place}/v1, its page at {place}/"
        run(serving, listening, lambda: print(line, file=sys.stderr, flush=True))
    print("stopped: what was taken is answered", file=sys.stderr)
    return 0


def check_extra() -> None:
    """Raises UserError unless the extra is installed."""
    missing = [name for name in ("fastapi", "uvicorn", "httpx") if find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: pip install 'hb-tta[serve]'")


def _backend(arguments: argparse.Namespace, limits: Limits) -> Backend:
    if arguments.model.startswith(("http://", "https://")):
        from hb_tta.serve.endpoint import Endpoint

        key = os.environ.get(THEIR_KEY)
        return Endpoint(arguments.model, arguments.name, key, float(limits.seconds))
    from hb_tta.serve.local import Local

    device, dtype = arguments.device, arguments.dtype
    check_device(device)
    return Local(arguments.model, arguments.name, device=device, dtype=dtype)


def _key(file: str | None) -> str | None:
    """The key: from a file or the environment, as a command line is for everybody to see."""
    if file is None:
        return os.environ.get(KEY) or None
    try:
        return read_text(user_path(file)).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"--key-file {Path(file)} cannot be read ({reason}): check it") from None


def _port(value: Any) -> int:
    return spelling.whole(value, least=0, most=65535)


def _notes() -> str:
    from hb_tta.serve.limits import Limits

    told = ", ".join(f"{one.name}={one.default}" for one in fields(Limits))
    lines = textwrap.wrap(f"limits, whole numbers: {told}", 90, subsequent_indent="  ")
    return "\n".join([*lines, "", settings_table()])
