"""Questions to model families that users deploy, and their answers, by each one's tokenizer and processor."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from benchmarks.vlm_families import FAMILIES, write_family
from curation.engine import Job
from curation.meters import CallCounter
from curation.models import Model
from curation.settings import PipelineSettings
from curation.vlm.asking import PROMPTS, Questions, read_reply
from curation.vlm.judge import VlmJudge
from tests.drawn_pipeline import settings
from tests.drawn_questions import people_of
from tests.fake_vlm import completion

EXACT = PROMPTS["outfit-exact"]


@pytest.fixture(scope="module", params=[family.name for family in FAMILIES])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, as a folder."""
    folder = tmp_path_factory.mktemp("families") / request.param
    write_family(request.param, folder, lessons=0)
    return folder


def spoken(folder: Path, text: str) -> list[str]:
    """A text in the family's tokens, as a server tells each by itself."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.decode([number]) for number in ids]


def raw(folder: Path, text: str) -> list[str]:
    """The same as some servers tell it: pieces as the vocabulary writes them, a blank as Ġ or ▁."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"]))


@pytest.mark.parametrize("written", ["{opening}{word}", '{{"same": "{word}'])
@pytest.mark.parametrize("tokens_of", [spoken, raw])
def test_yes_and_no_are_found_whatever_a_family_s_tokenizer_calls_them(
    family: Path, tokens_of: Any, written: str
) -> None:
    answers = {
        word: tokens_of(family, written.format(opening=EXACT.opening, word=word) + '"}')
        for word in ("yes", "no", "Yes", "No")
    }
    said = answers["no"]
    parts = next(place for place, token in enumerate(said) if token != answers["yes"][place])
    content = [{"token": token, "top_logprobs": [{"token": token, "logprob": 0.0}]} for token in said]
    weights = {"yes": 0.15, "Yes": 0.05, "no": 0.55, "No": 0.05}
    content[parts]["top_logprobs"] = [
        {"token": answers[word][parts], "logprob": math.log(weight)} for word, weight in weights.items()
    ]
    reply = read_reply(EXACT, completion('{"same": "no"}', content))
    assert reply.answer == "no"
    assert reply.p_yes == pytest.approx(0.25)


def test_a_break_of_up_to_four_lines_is_one_token_of_the_drawn_gemma_as_it_is_of_the_published(
    tmp_path: Path,
) -> None:
    write_family("gemma3", tmp_path, lessons=0)
    for number in range(1, 5):
        assert spoken(tmp_path, f"a{number * chr(10)}b") == ["a", number * chr(10), "b"]


def test_an_answer_in_capitals_is_the_same_answer() -> None:
    content = [
        {"token": '{"same":"', "top_logprobs": [{"token": '{"same":"', "logprob": 0.0}]},
        {
            "token": "Yes",
            "top_logprobs": [{"token": "Yes", "logprob": -0.5}, {"token": "No", "logprob": -1.5}],
        },
        {"token": '"}', "top_logprobs": [{"token": '"}', "logprob": 0.0}]},
    ]
    reply = read_reply(EXACT, completion('{"same":"Yes"}', content))
    assert reply.answer == "yes"
    assert reply.p_yes == pytest.approx(0.7311, abs=1e-4)


def test_a_family_is_asked_in_its_own_template_and_shown_the_pictures_in_their_order(
    family: Path, tmp_path: Path
) -> None:
    people = people_of(tmp_path / "photos", 2)
    pipeline = settings(tmp_path / "photos")
    card = {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}
    pipeline["models"] = {"cards": {"tiny": card}}
    pipeline["outfits"]["judge"] = {
        "backend": "transformers", "model": "tiny", "prompt": EXACT.name, "canvas_px": [112, 224],
        "dtype": "float32",
    }  # fmt: skip
    validated = PipelineSettings.model_validate(pipeline)
    model = Model("tiny", str(family), "0" * 64, "MIT")
    judge = VlmJudge(validated.outfits.judge, {"tiny": model})
    judge.join_run(Job(str(tmp_path / "run"), validated, {"tiny": model}), "outfits", CallCounter(None))
    pair = (people[0], people[1])
    there, back = judge.ask([pair, pair[::-1]])
    assert there.error is None
    assert there.score != back.score
    questions = Questions(validated.outfits.judge, model, validated.source)
    pictures: list[Image.Image] = [Image.open(io.BytesIO(questions.jpeg(person))) for person in pair]
    assert there.score == pytest.approx(p_yes_by_transformers(family, pictures), abs=1e-5)


def p_yes_by_transformers(folder: Path, pictures: list[Image.Image]) -> float:
    """p(yes) / (p(yes) + p(no)) as transformers' own chat function makes the prompt."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    content: list[dict[str, Any]] = [{"type": "text", "text": EXACT.text}]
    content += [{"type": "image", "image": picture} for picture in pictures]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    yes, no = (
        processor.tokenizer(f'{EXACT.opening}{word}"}}', add_special_tokens=False)["input_ids"]
        for word in ("yes", "no")
    )
    parts = next(place for place, (a, b) in enumerate(zip(yes, no, strict=False)) if a != b)
    begun = torch.tensor([yes[:parts]], dtype=torch.long)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], begun], dim=1)
    for name in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            beside = torch.full_like(begun, int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], beside], dim=1)
    with torch.inference_mode():
        scores = model(**inputs).logits[0, -1].double()
    return float((scores[[yes[parts], no[parts]]]).softmax(dim=0)[0])
