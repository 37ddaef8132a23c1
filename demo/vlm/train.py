"""Training of the demo's VLM from nothing: tower, language model, then both; resumable and seeded.

Stages, with their shares of the core minutes:
  tower      the vision tower states dense facts of single pictures (tower.py)
  language   the tower rests; the language model learns to caption and to compare from stored tokens
  together   all weights, from pixels
  strangers  the tower rests; the language model learns on people that the tower was never trained on
  dyed       all weights, from pixels, on new people in clothes dyed anew each time (dye.py)
Every batch is a function of (seed, stage, step), so a run that was stopped goes on as if it had not been.
"""

import argparse
import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as nnf
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from demo.vlm.architecture import build_model
from demo.vlm.dye import dyed_families
from demo.vlm.forward import see
from demo.vlm.language import WORDINGS, Lessons, corpus, save_serving_files, train_tokenizer
from demo.vlm.pictures import Pictures, mirror_facts, mirror_pixels, relight
from demo.vlm.pool import FACT_NAMES
from demo.vlm.tower import Facts, TowerHeads, chosen, equal_slots, facts_of
from demo.world import FACTS

VOCABULARY = 640
_CHECKPOINT_EVERY_S = 150.0
_WARMUP = 0.03
_CLIP = 1.0
_DECAY = 0.05
_REMINDER = 0.5
_DIMMED = 0.1
_HARD = 0.65


@dataclass(frozen=True)
class Stage:
    """One part of the training.

    share            of the core minutes
    rate             at its peak
    batch            pictures or pairs in a step
    scene_steps      share of the steps that show scenes
    hard             share of hard pairs where it begins; it ends at _HARD
    resting          whether the tower is left as it is
    pools            which of the pools it learns from: shares of their list
    """

    name: str
    share: float
    rate: float
    batch: int
    scene_steps: float
    hard: float
    resting: bool
    pools: tuple[float, float]


# Of the people it was trained on a tower knows the garments too well, and a language model that learned
# on the same people relies on that. So later stages show people that are new to both, and the last one
# clothes that nobody wore before.
STAGES = (
    Stage("tower", 0.25, 1.2e-3, 32, 0.65, 0.0, False, (0.0, 0.25)),
    Stage("language", 0.125, 1e-3, 32, 0.3, 0.0, True, (0.0, 0.25)),
    Stage("together", 0.19, 6e-4, 32, 0.5, 0.65, False, (0.25, 0.45)),
    Stage("strangers", 0.06, 5e-4, 32, 0.3, 0.65, True, (0.45, 0.65)),
    Stage("dyed", 0.375, 6e-4, 32, 0.35, 0.65, False, (0.65, 1.0)),
)


@dataclass
class Progress:
    """Where training stands: the stage, its steps, and the core seconds spent in it."""

    stage: int = 0
    step: int = 0
    seconds: float = 0.0
    steps_of: dict[str, int] = dataclasses.field(default_factory=dict)


def pools_of(pools: list[Path], stage: Stage) -> list[Path]:
    """The pools of a stage: no two of different stages where there are enough."""
    start, stop = (round(share * len(pools)) for share in stage.pools)
    return pools[start:stop] or pools


class Trainer:
    """Model, throw-away heads and optimisers, and how a step is made."""

    def __init__(self, folder: Path, pools: list[Path], seed: int, device: torch.device) -> None:
        self.folder, self.pools, self.seed, self.device = folder, pools, seed, device
        self.tokenizer: PreTrainedTokenizerFast = train_tokenizer(corpus(), VOCABULARY)
        self.model: Qwen2VLForConditionalGeneration = build_model(len(self.tokenizer), seed).to(device)
        # The fused attention's backward pass is slow on a CPU; at 90 tokens the plain one is quick.
        self.model.set_attn_implementation("eager")
        self.heads = TowerHeads().to(device)
        self.lessons = Lessons(self.model, self.tokenizer).to(device)
        self.progress = Progress()
        self.stored: torch.Tensor | None = None
        self.optimisers: list[torch.optim.Optimizer] = []
        self.begin_stage()
        if (folder / "checkpoint.pt").exists():
            self._restore()

    def begin_stage(self) -> None:
        """The stage's pictures and optimisers: Muon for matrices inside the blocks, AdamW for the rest."""
        stage = STAGES[self.progress.stage]
        self.pictures = Pictures(pools_of(self.pools, stage))
        parts: list[nn.Module] = {
            "tower": [self.model.model.visual, self.heads],
            "language": [self.model.model.language_model, self.lessons],
            "together": [self.model.model, self.heads, self.lessons],
            "strangers": [self.model.model.language_model, self.lessons],
            "dyed": [self.model.model, self.heads, self.lessons],
        }[stage.name]
        every = [(key, weight) for part in parts for key, weight in part.named_parameters()]
        inner = [weight for key, weight in every if weight.ndim == 2 and (".mlp." in key or "attn." in key)]
        chosen = {id(weight) for weight in inner}
        outer = [weight for _, weight in every if id(weight) not in chosen]
        self.weights = [weight for _, weight in every]
        self.optimisers = [
            torch.optim.Muon(
                inner, lr=0.0, weight_decay=_DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(outer, lr=0.0, weight_decay=_DECAY, betas=(0.9, 0.98)),
        ]
        self.stored = None

    def step(self, part: float) -> dict[str, float]:
        """One step, `part` (0 to 1) of the stage done; the terms of its loss by name."""
        stage = STAGES[self.progress.stage]
        random = np.random.default_rng([self.seed, self.progress.stage, self.progress.step])
        rate = stage.rate * min(1.0, part / _WARMUP) * (0.5 + 0.5 * math.cos(math.pi * min(part, 1.0)))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = max(rate, 0.01 * stage.rate)
        torch.manual_seed(int(random.integers(2**31)))
        scene = random.random() < stage.scene_steps
        with torch.autocast(self.device.type, torch.bfloat16):
            if stage.name == "tower":
                terms = self._tower_terms(random, stage.batch, "scene" if scene else "judge")
            elif scene:
                terms = self._caption_terms(random, stage)
            else:
                terms = self._judge_terms(random, stage, part)
            loss = sum((term for name, term in terms.items() if not name.endswith("_right")), torch.zeros(()))
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, _CLIP)
        for optimiser in self.optimisers:
            optimiser.step()
        self.progress.step += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def tokens(
        self, task: str, numbers: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor, Facts]:
        """Merged tokens of pictures, some of them mirrored, and their truth.

        While the tower rests, those of the judge come from a store: each is used many times. Others are
        seen anew, in other light.
        """
        mirrored = random.random(len(numbers)) < 0.5
        facts = facts_of(self.pictures.truth, numbers, task, self.device)
        facts = mirror_facts(facts, mirrored, task)
        resting = STAGES[self.progress.stage].resting
        if resting and task == "judge":
            if self.stored is None:
                self.stored = self._store(task)
            chosen = self.stored[torch.from_numpy(mirrored.astype(np.int64)), torch.from_numpy(numbers)]
            return chosen.to(self.device), facts
        return self._seen(self.pictures.pixels(task, numbers), mirrored, random), facts

    def dyed_tokens(
        self, families: np.ndarray, alone: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor, Facts]:
        """Like `tokens`, of families of judge pictures in clothes dyed anew (`dye.dyed_families`)."""
        dyed = dyed_families(random, self.pictures, families, alone)
        mirrored = random.random(len(dyed.pixels)) < 0.5
        facts = dataclasses.replace(
            facts_of(self.pictures.truth, families.ravel(), "judge", self.device),
            garments=torch.from_numpy(dyed.garments).to(self.device),
            shades=torch.from_numpy(dyed.shades).to(self.device),
            outfit=torch.from_numpy(dyed.outfit).to(self.device),
        )
        return self._seen(dyed.pixels, mirrored, random), mirror_facts(facts, mirrored, "judge")

    def _seen(self, pixels: np.ndarray, mirrored: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        lit = relight(mirror_pixels(pixels, mirrored), random)
        with torch.set_grad_enabled(not STAGES[self.progress.stage].resting):
            return see(self.model, torch.from_numpy(lit).to(self.device))

    def save(self) -> None:
        """Write the checkpoint, and the model as it would be served; either replaces the last in one move."""
        part = self.folder / "checkpoint.part"
        torch.save(
            {
                "model": self.model.state_dict(),
                "heads": self.heads.state_dict(),
                "lessons": self.lessons.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "progress": dataclasses.asdict(self.progress),
            },
            part,
        )
        os.replace(part, self.folder / "checkpoint.pt")

    def account(self) -> dict[str, Any]:
        """What the weights were made from: pictures, people, seed, steps of each stage and their batch."""
        everyone = Pictures(self.pools)
        truth = everyone.truth
        steps = self.progress.steps_of | {STAGES[self.progress.stage].name: self.progress.step}
        return {
            "seed": self.seed,
            "worlds": everyone.worlds,
            "pictures": len(everyone),
            "people": int(truth.person.max()) + 1,
            "outfits": int(truth.outfit.max()) + 1,
            "steps": steps,
            "batches": {stage.name: stage.batch for stage in STAGES},
        }

    def _restore(self) -> None:
        saved = torch.load(self.folder / "checkpoint.pt", map_location=self.device)
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        self.lessons.load_state_dict(saved["lessons"])
        self.progress = Progress(**saved["progress"])
        self.begin_stage()
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)

    def _tower_terms(self, random: np.random.Generator, batch: int, task: str) -> dict[str, torch.Tensor]:
        if task == "scene":
            numbers = random.integers(len(self.pictures), size=batch // 2)
        else:
            numbers = self.pictures.group(random, batch)
        tokens, facts = self.tokens(task, numbers, random)
        return self.heads.losses(tokens, facts, task)

    def _judge_terms(self, random: np.random.Generator, stage: Stage, part: float) -> dict[str, torch.Tensor]:
        # Easy pairs first: the share of hard ones grows to two thirds by the middle of the first stage.
        hard = min(stage.hard + part * 1.3, _HARD)
        if stage.resting:
            pairs = self.pictures.pairs(random, stage.batch, hard)
            tokens, facts = self.tokens("judge", np.concatenate(pairs), random)
            places = np.arange(2 * stage.batch).reshape(2, -1)
        elif stage.name == "together":
            family = self.pictures.families(random, stage.batch // 4, hard)
            tokens, facts = self.tokens("judge", family.ravel(), random)
            places = _pairs_of_families(random, len(family))
        else:
            two_outfits = self.pictures.families(random, stage.batch // 8, hard)
            one_outfit = self.pictures.families_of_one_outfit(random, stage.batch // 8)
            family = np.concatenate([two_outfits, one_outfit])
            alone = np.arange(len(family)) >= len(two_outfits)
            tokens, facts = self.dyed_tokens(family, alone, random)
            places = _pairs_of_families(random, len(family))
        with torch.no_grad():
            embedded = self.heads.embed(tokens)
        one, two = torch.from_numpy(places).to(self.device)
        equal = equal_slots(chosen(facts, one), chosen(facts, two))
        dimmed = _dimmed(tokens)
        terms = self.lessons.judge_losses(
            self.model,
            (dimmed[one], dimmed[two]),
            (chosen(facts, one), chosen(facts, two)),
            equal,
            (embedded[one], embedded[two]),
        )
        return terms | self._reminder(tokens, facts, "judge")

    def _caption_terms(self, random: np.random.Generator, stage: Stage) -> dict[str, torch.Tensor]:
        numbers = random.integers(len(self.pictures), size=stage.batch // 2)
        stated = [
            {name: list(FACTS[name])[value] for name, value in zip(FACT_NAMES, values, strict=True)}
            for values in self.pictures.truth.facts[numbers]
        ]
        wordings = random.integers(WORDINGS, size=len(numbers)).tolist()
        tokens, facts = self.tokens("scene", numbers, random)
        terms = self.lessons.caption_losses(self.model, _dimmed(tokens), stated, wordings)
        return terms | self._reminder(tokens, facts, "scene")

    def _reminder(self, tokens: torch.Tensor, facts: Facts, task: str) -> dict[str, torch.Tensor]:
        """The tower's own lessons beside those of language, while both are trained."""
        if STAGES[self.progress.stage].resting:
            return {}
        terms = self.heads.losses(tokens, facts, task)
        return {
            f"seen_{name}": _REMINDER * term for name, term in terms.items() if not name.endswith("_right")
        }

    @torch.no_grad()
    def _store(self, task: str) -> torch.Tensor:
        """bfloat16 [2, N, T, 256]: the resting tower's tokens of all pictures, plain and mirrored."""
        parts: list[torch.Tensor] = []
        for start in range(0, len(self.pictures), 64):
            pixels = self.pictures.pixels(task, np.arange(start, min(start + 64, len(self.pictures))))
            both = torch.from_numpy(np.stack([pixels, pixels[:, :, ::-1]]))
            with torch.autocast(self.device.type, torch.bfloat16):
                parts.append(torch.stack([see(self.model, side.to(self.device)) for side in both]).bfloat16())
        return torch.cat(parts, 1).cpu()


def _dimmed(tokens: torch.Tensor) -> torch.Tensor:
    """Picture tokens [B, T, 256] of which some, and of the others some values, are zero.

    What is left of a picture differs from time to time, so that outfits are not learned by heart.
    """
    kept = nnf.dropout(torch.ones_like(tokens[:, :, :1]), _DIMMED)
    return nnf.dropout(tokens, _DIMMED) * kept


def _pairs_of_families(random: np.random.Generator, families: int) -> np.ndarray:
    """int64 [2, 4 * families]: places of pairs in `Pictures.families`, laid flat; half are of one outfit."""
    of_one = np.array([[0, 1], [2, 3], [0, 2], [1, 3]])
    pairs = (of_one[None] + 4 * np.arange(families)[:, None, None]).reshape(-1, 2)
    turned = random.random(len(pairs)) < 0.5
    return np.ascontiguousarray(np.where(turned[:, None], pairs[:, ::-1], pairs).T)


def train(folder: Path, pools: list[Path], minutes: float, seed: int, device: torch.device) -> Trainer:
    """Train until `minutes` of processor time are used, from where the folder's checkpoint stands.

    More minutes than a finished run had lengthen its last stage.
    """
    trainer = Trainer(folder, pools, seed, device)
    progress = trainer.progress
    mean: dict[str, float] = {}
    last_save = last_print = clock = time.process_time()
    while True:
        stage = STAGES[progress.stage]
        part = progress.seconds / (60 * minutes * stage.share)
        if part >= 1:
            progress.steps_of[stage.name] = progress.step
            if progress.stage == len(STAGES) - 1:
                trainer.save()
                return trainer
            progress.stage, progress.step, progress.seconds = progress.stage + 1, 0, 0.0
            trainer.begin_stage()
            trainer.save()
            mean = {}
            continue
        for name, value in trainer.step(part).items():
            mean[name] = value if name not in mean else 0.95 * mean[name] + 0.05 * value
        now = time.process_time()
        progress.seconds += now - clock
        clock = now
        if now - last_print > 20:
            last_print = now
            print(f"{stage.name} {part:.3f} step {progress.step}", _told(mean), flush=True)
        if now - last_save > _CHECKPOINT_EVERY_S:
            last_save = now
            trainer.save()


def _told(mean: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.3f}" for name, value in mean.items())


def export(trainer: Trainer, out: Path) -> None:
    """Write the model in bfloat16 with all that transformers and vLLM need to serve it.

    What it learned from goes to the training folder's training.json, for the card (demo.vlm.card).
    """
    out.mkdir(parents=True, exist_ok=True)
    served = build_model(len(trainer.tokenizer), 0)
    served.load_state_dict(trainer.model.state_dict())
    served.bfloat16().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    save_serving_files(trainer.tokenizer, out)
    (trainer.folder / "training.json").write_text(json.dumps(trainer.account(), indent=2) + "\n")


def main() -> None:
    """Train, or go on training, and export."""
    parser = argparse.ArgumentParser(
        description="Trains the demo's VLM on pools of person pictures (python -m demo.vlm.pool).",
        epilog="example: python -m demo.vlm.train --minutes 80 --threads 1 --out /tmp/train/vlm",
    )
    parser.add_argument("--minutes", type=float, default=80, help="processor time of all stages")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the pools; checkpoint and model go there"
    )
    parser.add_argument("--export", type=Path, help="where to write the served model (default: OUT/model)")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    pools = sorted(path for path in settings.out.glob("pool-2???") if path.is_dir())
    trainer = train(settings.out, pools, settings.minutes, settings.seed, torch.device(settings.device))
    export(trainer, settings.export or settings.out / "model")


if __name__ == "__main__":
    main()
