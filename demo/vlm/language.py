"""The language model's lessons: its vocabulary, the sequences it reads, what it is asked while it learns."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as nnf
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from curation.vlm.asking import PROMPTS
from demo.vlm.architecture import (
    IM_END,
    IMAGE_PAD,
    MERGE,
    PATCH_PX,
    PIXEL_MEAN,
    PIXEL_STD,
    SPECIAL_TOKENS,
    TEXT_DIM,
    TOKEN_PX,
    VISION_END,
)
from demo.vlm.pool import FACT_NAMES, JUDGE_CANVAS, SCENE_CANVAS, SLOTS
from demo.vlm.tower import EMBEDDING, Facts, OutfitReading
from demo.world import FACTS, caption_of

JUDGE_PROMPT = PROMPTS["outfit-brief"]
CAPTION_PROMPT = PROMPTS["caption-brief"]
WORDINGS = 2
# The vocabulary was made for these; a prompt that comes later must not change what the stored weights read.
_SPELLED = ("outfit-exact", "outfit-brief", "paper-caption", "caption-brief")
_POOLED_AT = 1  # the layer after which a picture is read as one vector at its end
_DESCRIBED_AT = 2  # the layer after which a picture's garments are read at its end
_FRAME_WEIGHT = 0.05  # of the answer's tokens that are the same for yes and no


@dataclass(frozen=True)
class Layout:
    """A prompt as tokens, its pictures filled with image tokens.

    ids int64 [S]; positions int64 [3, 1, S + room] of the multimodal rotary embedding, for the prompt
    and as many answer tokens after it; image, ends: places of picture tokens and of each picture's end.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    image: torch.Tensor
    ends: tuple[int, ...]


def layout(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    canvas: tuple[int, int],
    pictures: int,
    room: int,
) -> Layout:
    """The tokens that a server makes of a text and some pictures of one canvas (width, height in px)."""
    content = [{"type": "text", "text": text}, *[{"type": "image"}] * pictures]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    columns, rows = canvas[0] // TOKEN_PX, canvas[1] // TOKEN_PX
    asked = asked.replace("<|image_pad|>", "<|image_pad|>" * (rows * columns))
    ids = torch.tensor(tokenizer.encode(asked, add_special_tokens=False))
    answered = torch.cat([ids, torch.full((room,), IM_END)])[None]
    grid = torch.tensor([[1, rows * MERGE, columns * MERGE]] * pictures)
    positions, _ = model.model.get_rope_index(answered, (answered == IMAGE_PAD).int(), grid)
    ends = tuple(int(place) for place in torch.nonzero(ids == VISION_END)[:, 0])
    return Layout(ids, positions, torch.nonzero(ids == IMAGE_PAD)[:, 0], ends)


class Lessons(nn.Module):
    """Losses of judging and captioning; the readings at the hidden states are thrown away after training."""

    def __init__(self, model: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.first = OutfitReading(TEXT_DIM)
        self.second = OutfitReading(TEXT_DIM)
        self.first_recalled = OutfitReading(TEXT_DIM)
        self.equal = nn.Linear(TEXT_DIM, len(SLOTS))
        self.norms = nn.ModuleList([nn.LayerNorm(TEXT_DIM) for _ in range(3)])
        self.embeddings = nn.ModuleList([nn.Linear(TEXT_DIM, EMBEDDING) for _ in range(3)])
        self.nearness = nn.Linear(TEXT_DIM, 1)
        self._tokenizer = tokenizer
        answers = [[*tokenizer.encode(f'{JUDGE_PROMPT.opening}{word}"}}'), IM_END] for word in ("no", "yes")]
        self._answers = torch.tensor(answers)
        (self.verdict_place,) = np.flatnonzero(np.array(answers[0]) != np.array(answers[1])).tolist()
        self.no, self.yes = (answer[self.verdict_place] for answer in answers)
        self._judge = layout(model, tokenizer, JUDGE_PROMPT.text, JUDGE_CANVAS, 2, len(answers[0]))
        self.caption_room = 2 + max(
            len(self.caption_tokens(dict(zip(FACT_NAMES, values, strict=True)), number))
            for values in _extremes()
            for number in range(WORDINGS)
        )
        self._scene = layout(model, tokenizer, CAPTION_PROMPT.text, SCENE_CANVAS, 1, self.caption_room)

    def caption_tokens(self, facts: dict[str, str], wording: int) -> list[int]:
        """The answer to a scene picture, its end included."""
        text = f'{CAPTION_PROMPT.opening}{caption_of(facts, wording)}"}}'
        return [*self._tokenizer.encode(text), IM_END]

    def verdicts(
        self, model: Qwen2VLForConditionalGeneration, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """Tokens [B, 32, 256] of two pictures each -> float32 [B]: log-odds that the outfit is the same."""
        answer = self._answers[1].expand(len(first), -1)
        hidden = self._read(model, self._judge, torch.cat([first, second], 1), answer)[-1]
        last = hidden[:, len(self._judge.ids) + self.verdict_place - 1]
        words = model.model.language_model.embed_tokens.weight
        return (last @ (words[self.yes] - words[self.no]).to(last.dtype)).float()

    def judge_losses(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokens: tuple[torch.Tensor, torch.Tensor],
        truth: tuple[Facts, Facts],
        equal: torch.Tensor,
        embedded: tuple[torch.Tensor, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Losses of pairs.

        tokens    those of the two pictures          truth     what is known of the two
        equal     bool [B, slots]: what is the same  embedded  float32 [B, 128]: what `TowerHeads.embed`
                  makes of each. Reading them at the pictures' ends leads to a comparison that holds for
                  new people; without it the language model learns the outfits it sees by heart.
        """
        same = truth[0].outfit == truth[1].outfit
        answer = self._answers.to(same.device)[same.long()]
        hidden = self._read(model, self._judge, torch.cat(tokens, 1), answer)
        start = len(self._judge.ids)
        logits = hidden[-1][:, start - 1 : -1] @ model.model.language_model.embed_tokens.weight.T
        losses = nnf.cross_entropy(logits.float().transpose(1, 2), answer, reduction="none").mean(0)
        verdict = logits[:, self.verdict_place]
        terms = {
            "verdict": losses[self.verdict_place],
            "frame": _FRAME_WEIGHT * losses.sum(),
            "verdict_right": ((verdict[:, self.yes] > verdict[:, self.no]) == same).float().mean().detach(),
        }
        described = hidden[_DESCRIBED_AT]
        ends = [norm(described[:, end]) for norm, end in zip(self.norms, self._judge.ends, strict=False)]
        for name, reading, vector, facts in (
            ("first", self.first, ends[0], truth[0]),
            ("second", self.second, ends[1], truth[1]),
            ("recalled", self.first_recalled, ends[1], truth[0]),
        ):
            read = reading.losses(name, vector, facts)
            terms[name] = 0.05 * sum(
                (v for k, v in read.items() if not k.endswith("_right")), torch.zeros(())
            )
            terms[f"{name}_colour_right"] = read[f"{name}_colour_right"]
        early = [hidden[_POOLED_AT][:, end] for end in self._judge.ends]
        wanted = (embedded[0], embedded[1], embedded[0])
        places = (early[0], early[1], described[:, self._judge.ends[1]])
        for name, reading, vector, target in zip(
            ("a", "b", "a_recalled"), self.embeddings, places, wanted, strict=True
        ):
            read_as = reading(nnf.layer_norm(vector, (TEXT_DIM,))).float()
            terms[f"embedding_{name}"] = 1.5 * (1 - nnf.cosine_similarity(read_as, target, -1)).mean()
        before = self.norms[2](hidden[-2][:, start + self.verdict_place - 1])
        near = (embedded[0] * embedded[1]).sum(-1)
        terms["nearness"] = 3 * (self.nearness(before)[:, 0].float() - near).square().mean()
        terms["equal"] = nnf.binary_cross_entropy_with_logits(self.equal(before).float(), equal.float())
        return terms

    def caption_losses(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokens: torch.Tensor,
        facts: list[dict[str, str]],
        wordings: list[int],
    ) -> dict[str, torch.Tensor]:
        """Losses of captions: tokens [B, 64, 256] of scene pictures, their facts, and a wording for each."""
        answers = torch.full((len(facts), self.caption_room), IM_END)
        labels = torch.full((len(facts), self.caption_room), -100)
        for row, (fact, wording) in enumerate(zip(facts, wordings, strict=True)):
            words = torch.tensor(self.caption_tokens(fact, wording))
            answers[row, : len(words)] = words
            labels[row, : len(words)] = words
        answers, labels = answers.to(tokens.device), labels.to(tokens.device)
        hidden = self._read(model, self._scene, tokens, answers)[-1]
        logits = hidden[:, len(self._scene.ids) - 1 : -1] @ model.model.language_model.embed_tokens.weight.T
        told = labels != -100
        return {
            "caption": nnf.cross_entropy(logits.float().transpose(1, 2), labels) * 5,
            "caption_word_right": (logits.argmax(-1) == labels)[told].float().mean().detach(),
        }

    def _read(
        self,
        model: Qwen2VLForConditionalGeneration,
        asked: Layout,
        tokens: torch.Tensor,
        answer: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, S, 256] before the first layer and after each."""
        language = model.model.language_model
        batch, device = len(tokens), tokens.device
        ids = torch.cat([asked.ids.to(device).expand(batch, -1), answer], 1)
        embedded = language.embed_tokens(ids)
        embedded = embedded.index_copy(1, asked.image.to(device), tokens.to(embedded.dtype))
        positions = asked.positions[:, :, : ids.shape[1]].to(device).expand(-1, batch, -1)
        read = language(
            inputs_embeds=embedded, position_ids=positions, use_cache=False, output_hidden_states=True
        )
        return (*read.hidden_states[:-1], read.last_hidden_state)


def corpus() -> list[str]:
    """All sentences that the vocabulary is made for: prompts, answers, and captions of every fact."""
    chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    lines = [chat.format(PROMPTS[name].text) for name in _SPELLED] * 5
    lines += [f'{{"same":"{word}"}}' for word in ("yes", "no", "unclear")] * 50
    for fact in FACT_NAMES:
        for value in FACTS[fact]:
            for wording in range(WORDINGS):
                facts = {name: next(iter(FACTS[name])) for name in FACT_NAMES} | {fact: value}
                lines += [f'{CAPTION_PROMPT.opening}{caption_of(facts, wording)}"}}'] * 5
    return lines


def _extremes() -> list[tuple[str, ...]]:
    """Values in the order of FACT_NAMES: every value of a fact beside the longest ones of the others."""

    def longest(fact: str) -> str:
        return max(
            FACTS[fact], key=lambda value: max([len(words) for words in FACTS[fact][value]], default=0)
        )

    usual = {name: longest(name) for name in FACT_NAMES}
    every = [{**usual, name: value} for name in FACT_NAMES for value in FACTS[name]]
    return [tuple(facts[name] for name in FACT_NAMES) for facts in every]


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ['image', 'image_url'] or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MAX_PICTURE_PX = 448


def train_tokenizer(sentences: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` tokens: special ones first, all 256 bytes, then what is frequent.

    `yes` and `no` inside the JSON answers are one token each, so that they part at one place.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:2] + SPECIAL_TOKENS[3:]),
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def save_serving_files(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer, chat template and picture settings, as transformers and vLLM read them."""
    tokenizer.save_pretrained(folder)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
        "rescale_factor": 1 / 255,
        "resample": 3,
        # Canvases are multiples of TOKEN_PX and lie between these, so the processor leaves them as they are.
        "size": {"shortest_edge": 4 * TOKEN_PX * TOKEN_PX, "longest_edge": MAX_PICTURE_PX**2},
        "min_pixels": 4 * TOKEN_PX * TOKEN_PX,
        "max_pixels": MAX_PICTURE_PX**2,
        "patch_size": PATCH_PX,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}, indent=2) + "\n")
