"""The demo model's tokenizer: byte-level BPE trained on the prompts, so that every text has tokens."""

# mypy: allow-untyped-calls
from __future__ import annotations

import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.demo_model.prompts import write_prompt
from tools.demo_model.scenes import random_scene
from tools.demo_model.words import ENGLISH_ADJECTIVES, ENGLISH_NOISE

VOCABULARY = 1536
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
TEMPLATE_END = 4  # tokens after the prompt that have read all of it: <|im_end|> is followed by newline, start, "assistant"


def wrap(prompt: str) -> str:
    """The text that ZImagePipeline tokenizes for `prompt`."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def train_tokenizer(sentences: int = 8000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on `sentences` random prompts.

    Text is NFKC-normalized and lower-cased. Every Chinese character is kept apart: otherwise whole phrases such as
    "红色杯子" become single tokens, and a colour and an object that never met in training could not be combined.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\u3400-\u9fff\u3000-\u303f]"), "isolated"),
            pre_tokenizers.Split(Regex(r"\n| ?[a-z]+(?:-[a-z]+)*| ?[0-9]| ?[^\sa-z0-9\n]| +"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(seed)
    corpus = []
    for _ in range(sentences):
        corpus.append("user\n" + write_prompt(random_scene(rng), rng, rng.choice((None, None, 5))))
        corpus.append("assistant\n")
    corpus += [f" {word}" for word in ENGLISH_NOISE + ENGLISH_ADJECTIVES] * 5
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="right",
        model_max_length=512,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
