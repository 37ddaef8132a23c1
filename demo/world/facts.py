"""What a caption may state of a photo, the words for it, and sentences made of them."""

FACTS: dict[str, dict[str, list[str]]] = {
    "pose": {
        "standing": ["standing", "stands"],
        "walking": ["walking", "walks"],
        "sitting": ["sitting", "sits"],
    },
    "arms": {
        "down": ["arms down", "arms at the sides"],
        "raised": ["arms raised", "arms up"],
        "waving": ["one arm raised", "waving"],
        "on_hips": ["hands on hips"],
    },
    "view": {
        "front": ["seen from the front", "facing the camera"],
        "three_quarter": ["half turned", "turned a little away"],
        "side": ["seen from the side", "in profile"],
        "back": ["seen from behind", "facing away"],
    },
    "framing": {
        "full": ["in full length"],
        "knees_up": ["from the knees up"],
        "waist_up": ["from the waist up"],
    },
    "scene": {
        "street": ["in a street"],
        "park": ["in a park"],
        "beach": ["on a beach"],
        "office": ["in an office"],
        "room": ["in a living room"],
        "studio": ["in a studio"],
        "mountains": ["in the mountains"],
        "night": ["in a city at night"],
    },
    "expression": {
        "neutral": ["with a calm face"],
        "smiling": ["smiling"],
        "open_mouth": ["with an open mouth"],
        "hidden": [],
    },
}


def caption_of(facts: dict[str, str], number: int = 0) -> str:
    """A sentence of pose, arms, view, scene and expression; `number` chooses the wording."""

    def phrase(fact: str) -> str:
        words = FACTS[fact][facts[fact]]
        return words[number % len(words)]

    parts = [
        f"A person is {FACTS['pose'][facts['pose']][0]} {phrase('scene')}",
        phrase("view"),
        phrase("arms"),
    ]
    if facts["expression"] != "hidden":
        parts.append(phrase("expression"))
    return ", ".join(parts) + "."
