"""Answers of an exported language model in transformers and, from its GGUF file, in llama.cpp.

    trainer export runs/NAME merged --merge --dtype fp32 --gguf
    python tests/benchmarks/gguf_answers.py merged --output gguf_answers.json

Needs llama-cpp-python, which builds llama.cpp from its sources. Both continue ten prompts greedily;
counted are the prompts that both tokenise alike, and those that both continue with the same tokens.
The logits after each prompt are compared, in their standard deviations.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROMPTS = [
    "What is the capital of France?",
    "Write a story that begins with: Once upon a time",
    "def fibonacci(n):",
    "In 1969, 12345 people",
    "Why does water boil?",
    "It's 3 o'clock; we'll",
    "Élan vital, naïve café",
    "Name the three primary colours.",
    "A list of fruits:\n1.",
    "Dear Sir or Madam,",
]
NUM_TOKENS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an exported folder with a .gguf file in it")
    parser.add_argument("--template", default="{}", help="around a prompt, such as a chat turn's")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    (file,) = arguments.folder.glob("*.gguf")
    prompts = [arguments.template.replace("\\n", "\n").format(prompt) for prompt in PROMPTS]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {name: version(name) for name in ("torch", "transformers", "gguf")}
        | {"llama-cpp-python": version("llama-cpp-python")},
        "tokens": NUM_TOKENS,
        **compared(arguments.folder, file, prompts),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


def compared(folder: Path, file: Path, prompts: list[str]) -> dict[str, Any]:
    """Returns how many prompts are tokenised and continued alike, and how far the logits differ."""
    import llama_cpp
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or [])
    # By default it keeps keys and values in fp16.
    fp32 = llama_cpp.GGML_TYPE_F32
    other = llama_cpp.Llama(
        str(file), n_ctx=1024, logits_all=True, type_k=fp32, type_v=fp32, verbose=False
    )
    num_tokenised, num_answered, widest = 0, 0, 0.0
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        num_tokenised += ids == other.tokenize(prompt.encode(), add_bos=True, special=True)
        inputs = torch.tensor([ids])
        with torch.no_grad():
            logits = model(inputs).logits[0, -1]
            answer = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )[0, len(ids) :].tolist()
        other.reset()
        other.eval(ids)
        found = torch.from_numpy(other.scores[len(ids) - 1])
        widest = max(widest, float((found - logits).abs().max() / logits.std()))
        other.reset()
        continued: list[int] = []
        for token in other.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            continued.append(token)
            if token in ends or len(continued) == NUM_TOKENS:
                break
        num_answered += continued == answer
    return {
        "prompts": len(prompts),
        "tokenised_alike": num_tokenised,
        "answered_alike": num_answered,
        "largest_difference_of_logits": widest,
    }


if __name__ == "__main__":
    main()
