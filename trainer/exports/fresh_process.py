"""Loads an exported folder as any user would, with transformers and PEFT alone, and answers.

`python -P fresh_process.py FOLDER`: FOLDER holds job.json and inputs.safetensors, and gets
findings.json and logits.safetensors. This file imports nothing of the package that it belongs to:
what the package changes in libraries cannot help. The process ends when its standard input does, so
that it does not outlive the process that started it.
"""

import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

MOST = 5
"""Names that a finding lists."""


def end_with_parent() -> None:
    """Ends this process once its standard input is closed."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def named(names: Any) -> str:
    """Returns names as text, the first few of many."""
    ordered = sorted(map(str, names))
    more = f" and {len(ordered) - MOST} more" if len(ordered) > MOST else ""
    return ", ".join(ordered[:MOST]) + more


def problems_of_files(folder: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns what is wrong with the stored tensors by themselves, and their shapes by name."""
    found: list[str] = []
    stored: dict[str, tuple[int, ...]] = {}
    twice: set[str] = set()
    empty: set[str] = set()
    nan: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    tensor = tensors.get_tensor(name)
                    twice |= {name} & stored.keys()
                    stored[name] = tuple(tensor.shape)
                    empty |= {name} if tensor.numel() == 0 else set()
                    floating = tensor.is_floating_point()
                    nan |= {name} if floating and bool(tensor.isnan().any()) else set()
        except SafetensorError as error:  # cut off, or the places of its tensors leave gaps
            found.append(f"{file.name} is not a sound file of contiguous tensors ({error})")
    found += [f"stored in two files: {named(twice)}"] if twice else []
    found += [f"empty tensors: {named(empty)}"] if empty else []
    found += [f"tensors with values that are not numbers: {named(nan)}"] if nan else []
    return found, stored


def problems_of_weights(
    model: Any, info: dict[str, Any], stored: dict[str, tuple[int, ...]]
) -> list[str]:
    """Returns which weights of the model are missing, partial, unexpected or stored twice."""
    found: list[str] = []
    missing = set(info.get("missing_keys", ()))
    prefix = f"{model.base_model_prefix}."
    head = {name for name in missing if not name.startswith(prefix)}
    if head and any(name.startswith(prefix) for name in model.state_dict()):
        found.append(f"the head is missing: {named(head)}")
        missing -= head
    found += [f"missing tensors: {named(missing)}"] if missing else []
    for name, kept, wanted in sorted(map(tuple, info.get("mismatched_keys", ()))):
        found.append(f"a partial tensor: {name} is {list(kept)}, and the model's {list(wanted)}")
    unexpected = info.get("unexpected_keys", ())
    found += [f"unexpected tensors: {named(unexpected)}"] if unexpected else []
    errors = info.get("error_msgs") or info.get("conversion_errors")
    found += [f"tensors that cannot be loaded: {named(errors)}"] if errors else []
    tied: dict[int, list[str]] = {}
    for name, value in model.state_dict().items():
        if value.numel():
            tied.setdefault(value.data_ptr(), []).append(name)
    for names in tied.values():
        both = [name for name in names if name in stored]
        if len(both) > 1:
            found.append(f"one tied tensor, stored twice: {named(both)}")
    return found


def problems_of_settings(
    model: Any, tokenizer: Any, folder: Path, job: dict[str, Any]
) -> list[str]:
    """Returns how configuration, generation settings and vocabulary differ from the run's."""
    found: list[str] = []
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    labels = job["labels"]
    if labels is not None:
        own = settings.get("id2label") or {}
        kept = [own.get(str(index)) for index in range(max(len(labels), len(own)))]
        if kept != labels:
            found.append(
                f"id2label is {kept[:MOST]}, and the labels of the run are {labels[:MOST]}"
            )
    for owner, kept in (
        ("config.json", model.config.pad_token_id),
        ("the tokenizer", tokenizer.pad_token_id),
    ):
        wanted = job["pad_token_ids"][owner]
        if kept != wanted:
            found.append(f"the padding token of {owner} is {kept}, and that of the run {wanted}")
    if job["ends"]:
        kept = model.generation_config.eos_token_id
        kept = [kept] if isinstance(kept, int) else kept or []
        if sorted(kept) != sorted(job["ends"]):
            found.append(f"generation ends at {kept}, and in the run at {job['ends']}")
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values())
    if rows <= largest:
        found.append(f"the vocabulary has {rows} rows, and the tokenizer gives the id {largest}")
    found += ["quantization_config is left"] if "quantization_config" in settings else []
    found += ["use_cache is off"] if settings.get("use_cache") is False else []
    return found


def problems_of_tokenizer(tokenizer: Any, job: dict[str, Any]) -> list[str]:
    """Returns how the tokenizer differs from the run's."""
    found: list[str] = []
    for text, ids in job["texts"]:
        if tokenizer(text, verbose=False)["input_ids"] != ids:
            found.append(f"the tokenizer encodes a text otherwise: {text[:80]!r}")
            break
    if tokenizer.chat_template != job["chat_template"]:
        found.append("the chat template is not that of the run")
    return found


def logits(model: Any, batches: list[dict[str, Any]], inputs: dict[str, Any]) -> dict[str, Any]:
    """Returns the logits of each batch, by "batch.name": those of real tokens that were chosen."""
    for module in model.modules():  # on a CPU bitsandbytes repacks 4-bit weights, and fails on tiny
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model.eval()
    answers: dict[str, Any] = {}
    for index, batch in enumerate(batches):
        arguments = {name: inputs[f"{index}.{name}"] for name in batch["arguments"]}
        with torch.no_grad():
            output = model(**arguments)
        for name, per_token in batch["outputs"].items():
            value = output[name]
            if per_token:
                value = value.flatten(0, 1)[inputs[f"{index}:positions"]]
            answers[f"{index}.{name}"] = value.float().contiguous()
    return answers


def run_code(code: str, folder: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Runs code of a model card in its folder, and returns all names that it defines."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, names)
    finally:
        os.chdir(before)
    return names


def answer(job: dict[str, Any], inputs: dict[str, Any], findings: dict[str, Any]) -> dict[str, Any]:
    """Returns the logits, by "model.batch.name", of what can be loaded; fills in the findings."""
    answers: dict[str, Any] = {}
    if job["registration"] is not None:  # its class is not one of transformers
        exec(job["registration"], {"folder": job["folder"] or job["adapter"]["folder"]})
    if job["folder"] is not None:
        made = answer_of_model(job, inputs, findings)
        answers |= {f"model.{name}": value for name, value in made.items()}
    if job["adapter"] is not None and not findings["problems"]:
        made = answer_of_adapter(job, inputs, findings)
        answers |= {f"adapter.{name}": value for name, value in made.items()}
    return answers


def answer_of_model(
    job: dict[str, Any], inputs: dict[str, Any], findings: dict[str, Any]
) -> dict[str, Any]:
    """Returns the logits of the model in a folder, and runs the code of its card; none if something
    is wrong with the folder."""
    folder = Path(job["folder"])
    findings["doing"] = "reading its files"
    found, stored = problems_of_files(folder)
    findings["problems"] += found
    if found:
        return {}
    findings["doing"] = "loading it"
    auto = getattr(transformers, job["auto_model"])
    # A tensor of another shape is then found, and named, like any other problem.
    model, info = auto.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True
    )
    findings["problems"] += problems_of_weights(model, info, stored)
    findings["doing"] = "loading its tokenizer"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    findings["problems"] += problems_of_settings(model, tokenizer, folder, job)
    findings["problems"] += problems_of_tokenizer(tokenizer, job)
    if findings["problems"]:
        return {}
    findings["doing"] = "computing its logits"
    made = logits(model, job["batches"], inputs)
    if job["usage"] is not None:
        findings["doing"] = "running the code of its card"
        names = {"folder": str(folder), **job["usage"]["names"]}
        findings["usage"] = run_code(job["usage"]["code"], folder, names)["answers"]
    return made


def answer_of_adapter(
    job: dict[str, Any], inputs: dict[str, Any], findings: dict[str, Any]
) -> dict[str, Any]:
    """Returns the logits of adapters, loaded onto their base by the code of their card."""
    folder = Path(job["adapter"]["folder"])
    findings["doing"] = "loading its adapters by the code of their card"
    found, _ = problems_of_files(folder)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        found += problems_of_tokenizer(tokenizer, job)
    findings["adapter_problems"] += found
    if found:
        return {}
    model = run_code(job["adapter"]["code"], folder, {})["model"]
    return logits(model, job["batches"], inputs)


def main(folder: Path) -> None:
    """Does the job in a folder, and leaves findings and logits there."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    job = json.loads((folder / "job.json").read_text("utf-8"))
    torch.set_num_threads(job["num_threads"])
    findings: dict[str, Any] = {
        "problems": [],
        "adapter_problems": [],
        "usage": None,
        "error": None,
    }
    answers: dict[str, Any] = {}
    try:
        answers = answer(job, load_file(folder / "inputs.safetensors"), findings)
    except MemoryError:
        raise
    except Exception as error:
        findings["error"] = f"{type(error).__name__}: {error}"
    foreign = [name for name in job["not_imported"] if name in sys.modules]
    assert not foreign, foreign
    save_file(answers, folder / "logits.safetensors")
    (folder / "findings.json").write_text(json.dumps(findings), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
