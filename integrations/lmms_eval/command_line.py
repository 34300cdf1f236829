"""Our flags out of lmms-eval's command line, and into it what the run then needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from hb_tta import spelling
from hb_tta.errors import UserError
from hb_tta.generators import list_methods
from hb_tta.integrations.lmms_eval.model_args import model_args
from hb_tta.reading import read_bytes
from hb_tta.settings import settings_table
from hb_tta.settings.augmented import AugmentSettings, combinations
from hb_tta.shards import Shard

SUPPORTED = ((0, 7, 3), (0, 8))  # from … to before …
TASKS = Path(__file__).parents[1] / "tasks"
DEFAULT_MODEL = "llava_hf"

HELP = """\
options of hb-tta:
  --augment NAME        show the model generated views beside each image and combine what it
                        says: {methods}. Without --model this asks
                        the family's own MLLM through {model}.
  --augment_args key=value,… or a JSON object or @file.json, for values with commas
                        n=4             generated views of an image
                        family=sdxl     their models: sdxl (hub weights, GPU) or pocket (bundled)
                        seed=0          of the first view
                        describer=      a folder or hub id of the MLLM that describes
                        dtype=, batch_size=, cpu_offload=, device=   how the views are made
                        store=DIR       where they are kept
                        preset=safe     what decides the rest where nothing is said: safe (for
                                        hummingbird: views where the model is not sure) or paper
                                        (views for every question; all other methods)
                        gate=P          views only where the model's probability of its plain
                                        answer is below P; none: everywhere
                        gate_share=S    for the least sure share of all questions
                        combine=mean    {rules};
                                        describe puts the description in the image's place in
                                        one row more. Where a backend gives no logits: vote asks
                                        for an answer from each view; rescore lets all views
                                        score what they propose (vLLM and its server); concat
                                        shows all pictures in one prompt
                        at_once=auto    questions that are answered in one batch
                        paraphrases=k   other wordings of the question, 0 to 4
                        n=0             no views: describe or paraphrases alone
                        real_weight=1   the real image's weight beside 1 of a view
                        share=0.5       of the views that selection and zero keep
                        alpha=1         how much contrast takes off
                        and the method's own:

{settings}

  --shard I/N           the I-th of N parts of each task's questions, 1/N to N/N: a process each
                        makes its views; the run without --shard then finds all of them in the
                        store, and its scores are those of the whole task
"""

# The shortest form of an option that lmms-eval's parser still understands.
_SHORTEST = {
    "--model": "--model",
    "--model_args": "--model_",
    "--tasks": "--ta",
    "--config": "--co",
    "--include_path": "--inc",
    "--output_path": "--ou",
    "--device": "--d",
    "--use_cache": "--us",
    "--cache_requests": "--cache",
}


def prepare(argv: list[str]) -> list[Any]:
    """See ``hb_tta.integrations.lmms_eval.prepare``.

    Raises:
        UserError: the flags cannot be followed.
    """
    check_version()
    line = CommandLine(argv[1:])
    shard = _shard(line.take("--shard"))
    method, arguments = line.take("--augment"), line.take("--augment_args", "--augment-args")
    configs = _read_configs(line.value("--config"))
    _include_our_tasks(line, configs)
    if method is None:
        if arguments is not None:
            raise UserError("--augment_args without --augment: name a method, or leave it out")
        if shard is not None:
            raise UserError("--shard without --augment: there are no views to make, leave it out")
        argv[1:] = line.arguments
        return []
    settings = AugmentSettings.parse(method, arguments or "", device=_device(line))
    _check_whole(line, configs, settings, shard)
    models = _choose_model(line, configs, settings)
    _add_model_args(line, configs, settings, shard)
    argv[1:] = line.arguments

    from hb_tta.integrations.lmms_eval import classes

    return classes.override(models, settings, _output_path(line, configs), shard)


def _shard(text: str | None) -> Shard | None:
    try:
        return None if text is None else Shard.parse(text)
    except spelling.Unfit as error:
        raise UserError(f"--shard {text!r} {error}") from None


def _check_whole(
    line: CommandLine,
    configs: list[dict[str, Any]],
    settings: AugmentSettings,
    shard: Shard | None,
) -> None:
    """Raises UserError where a share of all questions is asked for and they are not all here."""
    share = settings.views.gate_share
    if shard is not None and _in_force(line, configs, "cache_requests"):
        raise UserError(
            f"--cache_requests keeps the requests of --shard {shard} as if they were all: leave "
            "one of them out"
        )
    if share is not None and shard is not None:
        raise UserError(
            f"gate_share={share} needs all questions in one place, and --shard {shard} has a part: "
            "use gate=P, which looks at one question"
        )
    if share is None:
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cached = _in_force(line, configs, "use_cache")
    if processes > 1 or cached:
        why = f"{processes} processes share them" if processes > 1 else "--use_cache keeps some"
        raise UserError(
            f"gate_share={share} needs all questions in one place, and {why}: use gate=P, which "
            "looks at one question"
        )


def help_text() -> str:
    """Our options, for those who ask lmms-eval for its own."""
    return HELP.format(
        methods=", ".join(list_methods()),
        model=DEFAULT_MODEL,
        rules=", ".join(combinations()),
        settings=settings_table(),
    )


def check_version() -> None:
    """Raises UserError unless the installed lmms-eval is one whose inner workings we know."""
    version = metadata.version("lmms_eval")
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not SUPPORTED[0] <= numbers < SUPPORTED[1]:
        raise UserError(f'lmms-eval {version} is not known: pip install "lmms_eval>=0.7.3,<0.8"')


class CommandLine:
    """lmms-eval's arguments, as ``argparse`` will read them: of an option the last value counts."""

    def __init__(self, arguments: Iterable[str]) -> None:
        self.arguments = list(arguments)

    def value(self, name: str) -> str | None:
        """The value of an option, or None."""
        values = [value for _, _, value in self._found((name,), _SHORTEST[name])]
        return values[-1] if values else None

    def take(self, *names: str) -> str | None:
        """Remove an option that lmms-eval does not know, and give its value."""
        found = list(self._found(names, None))
        for start, end, _ in reversed(found):
            del self.arguments[start:end]
        if len({value for *_, value in found}) > 1:
            raise UserError(f"{names[0]} stands twice: leave one out")
        return found[0][2] if found else None

    def set(self, name: str, value: str) -> None:
        """Give an option a value that counts whatever stands before."""
        self.arguments += [f"{name}={value}"]

    def _found(self, names: tuple[str, ...], shortest: str | None):
        """(start, end, value) of each occurrence."""
        for start, argument in enumerate(self.arguments):
            option, has_value, value = argument.partition("=")
            shortened = (
                shortest is not None and option.startswith(shortest) and names[0].startswith(option)
            )
            if option not in names and not shortened:
                continue
            if has_value:
                yield start, start + 1, value
            elif start + 1 < len(self.arguments):
                yield start, start + 2, self.arguments[start + 1]
            else:
                raise UserError(f"{argument} needs a value: see lmms-eval eval --help")


def _read_configs(path: str | None) -> list[dict[str, Any]]:
    """lmms-eval's --config: one mapping, or a list of them."""
    if not path or not os.path.isfile(path):
        return []  # lmms-eval says it
    import yaml

    read = yaml.safe_load(read_bytes(path))
    configs = read if isinstance(read, list) else [read]
    return [config for config in configs if isinstance(config, dict)]


def _in_force(line: CommandLine, configs: list[dict[str, Any]], name: str) -> list[str]:
    """The values of an option: the command line's, else those of the configurations."""
    value = line.value(f"--{name}")
    if value is not None:
        return [value]
    return [str(config[name]) for config in configs if config.get(name)]


def _include_our_tasks(line: CommandLine, configs: list[dict[str, Any]]) -> None:
    """Let lmms-eval find our tasks where one of them is asked for."""
    asked = {task for tasks in _in_force(line, configs, "tasks") for task in tasks.split(",")}
    ours = {path.stem for path in TASKS.rglob("*.yaml")}
    if not asked & ours:
        return
    included = _in_force(line, configs, "include_path")
    if any(path != str(TASKS) for path in included):
        raise UserError(
            f"--include_path {included[0]} beside the task {min(asked & ours)}: lmms-eval includes "
            "one folder, so run them one after the other"
        )
    line.set("--include_path", str(TASKS))


def _choose_model(
    line: CommandLine, configs: list[dict[str, Any]], settings: AugmentSettings
) -> set[str]:
    """The models of the run; if none is named, the family's MLLM."""
    own = line.value("--model")
    named = [own] if own else [config.get("model") for config in configs]
    models = {str(name) for name in named if name}
    if models and not all(named):
        raise UserError(f"{line.value('--config')} names a model in some of its parts: name all")
    if models:
        return models
    line.set("--model", DEFAULT_MODEL)
    if not _in_force(line, configs, "model_args"):
        line.set("--model_args", _default_model_args(line, settings))
    return {DEFAULT_MODEL}


def _default_model_args(line: CommandLine, settings: AugmentSettings) -> str:
    from hb_tta.device import default_device
    from hb_tta.families import get_family

    args = f"pretrained={get_family(settings.views.family).weights('mllm').location}"
    device = line.value("--device")
    if device is None and default_device() == "cpu":
        line.set("--device", device := "cpu")
    return f"{args},device_map=cpu" if device == "cpu" else args


def _add_model_args(
    line: CommandLine,
    configs: list[dict[str, Any]],
    settings: AugmentSettings,
    shard: Shard | None,
) -> None:
    """Our settings behind the arguments in force: lmms-eval keys its caches by them."""
    found = set(_in_force(line, configs, "model_args"))
    parts = len(configs) if line.value("--model_args") is None else 1
    given = [config for config in configs if config.get("model_args")]
    if len(found) > 1 or (given and len(given) < parts):
        raise UserError(
            f"{line.value('--config')} has several model_args, which --augment has to add to: "
            "split it into files with one each"
        )
    own = found.pop() if found else ""
    line.set("--model_args", ",".join(filter(None, (own, model_args(settings, shard)))))


def _device(line: CommandLine) -> str | None:
    """Where this process generates: its own GPU of several, or the CPU if the run is on it."""
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes")
    if on_cpu or (line.value("--device") or "").startswith("cpu"):
        return "cpu"
    from hb_tta.device import default_device

    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and default_device() == "cuda" else None


def _output_path(line: CommandLine, configs: list[dict[str, Any]]) -> Path | None:
    """The folder that lmms-eval will put the run's files into folders of."""
    found = _in_force(line, configs, "output_path")
    if not found:
        return None
    path = Path(found[0])
    return path.parent if path.suffix in (".json", ".jsonl") else path
