"""The demo's small VLM: its stored weights answer in the protocol's form, and rightly, on unseen people."""

import json

import cv2
import numpy as np
import pytest
import torch

from curation.pipeline_file import load_pipeline
from curation.vlm.asking import PROMPTS
from demo.vlm.architecture import build_model
from demo.vlm.dye import dyed_families
from demo.vlm.forward import patches_of, see
from demo.vlm.language import Lessons, corpus, layout, train_tokenizer
from demo.vlm.measure import Asked, caption_accuracy, judge_accuracy, stated_facts
from demo.vlm.pictures import Pictures
from demo.vlm.pool import JUDGE_CANVAS, SCENE_CANVAS, SCENE_MARGIN, SLOTS, draw_pool
from demo.vlm.train import VOCABULARY, Trainer
from demo.world import FACTS, caption_of
from demo.world.outfits import LEAST_DIFFERENCE
from tests.drawn_pipeline import ROOT

WEIGHTS = ROOT / "demo" / "weights" / "vlm"
UNSEEN = 961000


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    cv2.setNumThreads(1)
    folder = tmp_path_factory.mktemp("pools") / f"pool-{UNSEEN}"
    draw_pool(UNSEEN, 70, folder, 1)
    return folder


@pytest.fixture(scope="module")
def pictures(pool):
    return Pictures([pool])


@pytest.fixture(scope="module")
def asked():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Asked(WEIGHTS)
    torch.set_num_threads(threads)


def test_the_stored_model_judges_outfits_of_unseen_people_far_above_chance(asked, pictures):
    figures = judge_accuracy(asked, pictures, 40, UNSEEN)
    assert figures["judge_accuracy"] >= 0.85, figures


def test_the_stored_model_answers_both_prompts_with_json_of_the_protocol(asked, pictures):
    judged = asked.answers(PROMPTS["outfit-brief"].text, [list(pictures.pixels("judge", np.array([0, 1])))])
    assert judged[0] in ('{"same":"yes"}', '{"same":"no"}')
    caption = json.loads(
        asked.answers(PROMPTS["caption-brief"].text, [[pictures.pixels("scene", np.array([0]))[0]]])[0]
    )
    assert list(caption) == ["caption"]
    assert len(stated_facts(caption["caption"])) >= 4


def test_the_stored_model_states_facts_of_unseen_photos(asked, pictures):
    figures = caption_accuracy(asked, pictures, 24)
    assert figures["caption_valid"] == 1.0
    assert figures["caption_facts"] >= 0.8, figures


def test_the_stored_model_is_small_enough_for_the_repository():
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 12_000_000


def test_yes_and_no_part_at_one_token():
    tokenizer = train_tokenizer(corpus(), VOCABULARY)
    yes, no = (tokenizer.encode(f'{{"same":"{word}"}}') for word in ("yes", "no"))
    assert len(yes) == len(no)
    assert sum(a != b for a, b in zip(yes, no, strict=True)) == 1


def test_the_training_pass_sees_what_the_served_tower_sees():
    tower = build_model(VOCABULARY, 1)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 224, 112, 3), dtype=np.uint8))
    patches = patches_of(pixels).view(2 * 128, 3, 1, 14, 14).expand(-1, -1, 2, -1, -1).reshape(256, -1)
    with torch.no_grad():
        mine = see(tower, pixels).flatten(0, 1)
        served = tower.model.visual(patches, grid_thw=torch.tensor([[1, 16, 8]] * 2)).pooler_output
    assert torch.allclose(mine, served, atol=1e-4)


def test_training_and_serving_make_the_same_tokens_of_a_pair(asked):
    tokenizer = train_tokenizer(corpus(), VOCABULARY)
    trained = layout(build_model(VOCABULARY, 0), tokenizer, PROMPTS["outfit-brief"].text, JUDGE_CANVAS, 2, 4)
    blank = np.zeros((224, 112, 3), np.uint8)
    served = asked.inputs(PROMPTS["outfit-brief"].text, [[blank, blank]])
    assert trained.ids.tolist() == served["input_ids"][0].tolist()


def test_every_caption_fits_the_room_that_training_leaves_for_it():
    tokenizer = train_tokenizer(corpus(), VOCABULARY)
    lessons = Lessons(build_model(VOCABULARY, 0), tokenizer)
    random = np.random.default_rng(0)
    for number in range(200):
        facts = {name: str(random.choice(list(values))) for name, values in FACTS.items()}
        assert len(lessons.caption_tokens(facts, number % 2)) <= lessons.caption_room


def test_the_facts_of_a_caption_are_found_again_in_its_words():
    facts = {"pose": "sitting", "arms": "waving", "view": "side", "scene": "night", "expression": "smiling"}
    for number in range(2):
        assert stated_facts(caption_of({**facts, "framing": "full"}, number)) == facts


def test_pairs_are_of_one_person_and_unequal_ones_differ_in_a_main_garment(pictures):
    first, second = pictures.pairs(np.random.default_rng(0), 60, 0.5)
    truth = pictures.truth
    assert (truth.person[first] == truth.person[second]).all()
    same = truth.outfit[first] == truth.outfit[second]
    assert same.tolist() == [number % 2 == 0 for number in range(60)]
    main = [SLOTS.index(slot) for slot in ("upper", "lower", "dress", "outer")]
    equal = pictures.equal_slots(first, second)[:, main]
    assert equal[same].all()
    assert not equal[~same].all(1).any()


def test_training_that_was_stopped_goes_on_with_the_same_weights(tmp_path, pool):
    torch.set_num_threads(1)
    whole = Trainer(tmp_path / "whole", [pool], 5, torch.device("cpu"))
    for _ in range(2):
        whole.step(0.5)
    (tmp_path / "halves").mkdir()
    half = Trainer(tmp_path / "halves", [pool], 5, torch.device("cpu"))
    half.step(0.5)
    half.save()
    resumed = Trainer(tmp_path / "halves", [pool], 5, torch.device("cpu"))
    assert resumed.progress.step == 1
    resumed.step(0.5)
    for name, weight in whole.model.state_dict().items():
        assert torch.allclose(weight, resumed.model.state_dict()[name], atol=1e-6), name


def test_the_pipeline_shows_the_model_pictures_as_it_learned_from() -> None:
    pipeline = load_pipeline(str(ROOT / "pipelines.yaml"), "demo", [])
    judge, captioner = pipeline.outfits.judge, pipeline.captions.by
    assert (tuple(judge.canvas_px), judge.margin, judge.background) == (JUDGE_CANVAS, 0.0, "grey")
    assert (tuple(captioner.canvas_px), captioner.margin) == (SCENE_CANVAS, SCENE_MARGIN)
    assert (judge.prompt, captioner.prompt) == ("outfit-brief", "caption-brief")


def test_a_family_dyed_anew_agrees_with_its_truth(pictures):
    random = np.random.default_rng(4)
    families = np.concatenate(
        [pictures.families(random, 4, 0.65), pictures.families_of_one_outfit(random, 4)]
    )
    alone = np.arange(8) >= 4
    dyed = dyed_families(random, pictures, families, alone)
    numbers = families.ravel()
    truth = pictures.truth
    before, shows = pictures.pixels("judge", numbers).astype(float), pictures.labels(numbers)
    arms = [cv2.erode((label == 13).astype(np.uint8), np.ones((3, 3))) > 0 for label in shows]
    for arm, now, then in zip(arms, dyed.pixels, before, strict=True):
        assert (now[arm] == then[arm]).all()
    slot_of = {4: ("outer", "upper"), 6: ("lower",), 7: ("dress",)}
    for row, number in enumerate(numbers):
        assert (dyed.outfit[row] == dyed.outfit[row ^ 1]).all()  # the two that were photographed alike
        for label, slots in slot_of.items():
            worn = [SLOTS.index(slot) for slot in slots if truth.garments[number, SLOTS.index(slot), 0] >= 0]
            inside = cv2.erode((shows[row] == label).astype(np.uint8), np.ones((5, 5))) > 0
            if len(worn) == 1 and inside.sum() > 200:
                (slot,) = worn
                change = np.abs(dyed.pixels[row][inside] - before[row][inside]).mean()
                same = np.allclose(dyed.shades[row, slot], truth.shades[number, slot])
                assert change < 1 if same else change > 2
    for first in range(16, 32, 4):  # one garment apart, as far as the world's outfits are
        apart = np.linalg.norm(50 * (dyed.shades[first] - dyed.shades[first + 2])[:, :3], axis=-1)
        if dyed.outfit[first] != dyed.outfit[first + 2]:
            assert apart.max() >= LEAST_DIFFERENCE - 0.5
    assert (dyed.outfit[16:32:4] != dyed.outfit[18:32:4]).sum() >= 3
