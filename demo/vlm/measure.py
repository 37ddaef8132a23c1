"""How right the VLM is on people it was never trained on, asked through transformers as by a server."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

from curation.vlm.asking import PROMPTS
from demo.vlm.pictures import Pictures
from demo.vlm.pool import FACT_NAMES, draw_pool
from demo.world import FACTS

JUDGE, CAPTIONER = PROMPTS["outfit-brief"], PROMPTS["caption-brief"]
STATED_FACTS = ("pose", "arms", "view", "scene", "expression")


class Asked:
    """A model folder, asked with the demo's prompts."""

    def __init__(self, folder: Path) -> None:
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        yes, no = (self._tokens(f'{JUDGE.opening}{word}"}}') for word in ("yes", "no"))
        self._place = next(place for place, (a, b) in enumerate(zip(yes, no, strict=True)) if a != b)
        self._opening, self._yes, self._no = yes[: self._place], yes[self._place], no[self._place]

    def same(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """uint8 [B, 224, 112, 3] twice -> float32 [B]: the probability of yes, of yes or no."""
        asked = self.inputs(JUDGE.text, [list(pair) for pair in zip(first, second, strict=True)])
        opening = torch.tensor(self._opening).expand(len(first), -1)
        asked["input_ids"] = torch.cat([asked["input_ids"], opening], 1)
        asked["attention_mask"] = torch.ones_like(asked["input_ids"])
        asked["mm_token_type_ids"] = torch.cat([asked["mm_token_type_ids"], torch.zeros_like(opening)], 1)
        with torch.no_grad():
            logits = self._model(**asked, logits_to_keep=1).logits[:, -1]
        return np.asarray((logits[:, self._yes] - logits[:, self._no]).sigmoid().float().numpy())

    def answers(self, text: str, pictures: list[list[np.ndarray]], most_tokens: int = 48) -> list[str]:
        """What the model says of each list of pictures, word by likeliest word."""
        asked = self.inputs(text, pictures)
        with torch.no_grad():
            written = self._model.generate(**asked, max_new_tokens=most_tokens, do_sample=False)
        told: list[str] = self._processor.batch_decode(
            written[:, asked["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return told

    def inputs(self, text: str, pictures: list[list[np.ndarray]]) -> dict[str, torch.Tensor]:
        """What the model is given for a text and some pictures in each of B rows, by argument."""
        content = [{"type": "text", "text": text}, *[{"type": "image"}] * len(pictures[0])]
        prompt = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        images = [[Image.fromarray(picture) for picture in row] for row in pictures]
        return dict(self._processor(text=[prompt] * len(pictures), images=images, return_tensors="pt"))

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._processor.tokenizer.encode(text, add_special_tokens=False)
        return tokens


def judge_accuracy(asked: Asked, pictures: Pictures, pairs: int, seed: int) -> dict[str, float]:
    """Shares right on pairs of one person each, every other pair of one outfit.

    judge_accuracy: unequal pairs as they come; judge_hard_accuracy: all unequal pairs have a main garment
    in common; ..._yes and ..._no: the equal and the unequal pairs alone.
    """
    figures: dict[str, float] = {}
    for name, hard in (("judge", 0.0), ("judge_hard", 1.0)):
        random = np.random.default_rng([seed, int(hard)])
        first, second = pictures.pairs(random, pairs, hard)
        probabilities = np.concatenate(
            [
                asked.same(pictures.pixels("judge", first[rows]), pictures.pixels("judge", second[rows]))
                for rows in _batches(pairs)
            ]
        )
        same = pictures.truth.outfit[first] == pictures.truth.outfit[second]
        right = (probabilities > 0.5) == same
        full = pictures.truth.full[first] & pictures.truth.full[second]
        figures[f"{name}_accuracy"] = float(right.mean())
        figures[f"{name}_full_accuracy"] = float(right[full].mean())
        figures[f"{name}_yes"], figures[f"{name}_no"] = float(right[same].mean()), float(right[~same].mean())
    return figures


def caption_accuracy(asked: Asked, pictures: Pictures, count: int) -> dict[str, float]:
    """Shares of the stated facts that are right, by fact, and of the captions that are valid JSON."""
    numbers = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(np.int64)
    stated = dict.fromkeys(STATED_FACTS, 0)
    right = dict.fromkeys(STATED_FACTS, 0)
    valid = 0
    for rows in _batches(len(numbers)):
        pixels = pictures.pixels("scene", numbers[rows])
        for number, text in zip(
            numbers[rows], asked.answers(CAPTIONER.text, [[p] for p in pixels]), strict=True
        ):
            caption = _caption(text)
            valid += caption is not None
            for fact, word in stated_facts(caption or "").items():
                truth = list(FACTS[fact])[pictures.truth.facts[number, FACT_NAMES.index(fact)]]
                stated[fact] += 1
                right[fact] += word == truth
    figures = {f"caption_{fact}": right[fact] / max(stated[fact], 1) for fact in STATED_FACTS}
    main = ("pose", "arms", "view", "scene")
    figures["caption_facts"] = sum(right[fact] for fact in main) / max(sum(stated[fact] for fact in main), 1)
    return figures | {
        "caption_valid": valid / len(numbers),
        "caption_stated": sum(stated.values()) / len(numbers),
    }


def stated_facts(caption: str) -> dict[str, str]:
    """The facts that a caption states, by the longest of FACTS' phrases that it holds."""
    facts: dict[str, str] = {}
    for fact in STATED_FACTS:
        phrases = [
            (len(words), value)
            for value, all_words in FACTS[fact].items()
            for words in all_words
            if words in caption
        ]
        if phrases:
            facts[fact] = max(phrases)[1]
    return facts


def _caption(text: str) -> str | None:
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return None
    return answer["caption"] if isinstance(answer, dict) and set(answer) == {"caption"} else None


def _batches(count: int, size: int = 32) -> Iterator[np.ndarray]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def main() -> None:
    """Measure a model folder on a world of its own."""
    parser = argparse.ArgumentParser(
        description="Measures the demo's VLM on people it was not trained on (seeds from 950000 on).",
        epilog="example: python -m demo.vlm.measure --model demo/weights/vlm --seed 950001",
    )
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "weights" / "vlm")
    parser.add_argument("--seed", type=int, default=950001)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--captions", type=int, default=300)
    parser.add_argument(
        "--pools", type=Path, default=Path("/tmp/train/vlm"), help="where the world's pool is kept"
    )
    settings = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    folder = settings.pools / f"pool-{settings.seed}"
    draw_pool(settings.seed, settings.photos, folder, 1)
    asked, pictures = Asked(settings.model), Pictures([folder])
    figures = judge_accuracy(asked, pictures, settings.pairs, settings.seed)
    figures |= caption_accuracy(asked, pictures, settings.captions)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
