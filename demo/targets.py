"""What the demo's models must reach on worlds that none of them was trained on."""

TARGETS: dict[str, float] = {
    "detect_recall": 0.97,
    "detect_precision": 0.97,
    "mask_iou": 0.90,
    "region_miou": 0.85,
    "face_accuracy": 0.98,
    "judge_accuracy": 0.95,
    "judge_hard_accuracy": 0.85,
    "identity_bcubed_precision": 0.98,
    "identity_bcubed_recall": 0.93,
    "pair_precision": 0.97,
    "caption_facts": 0.90,
}
