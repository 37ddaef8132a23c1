"""Words that a caption must not hold: about clothes, and about who somebody is.

The trainer takes clothes and identity from the reference photo; a caption that names them would teach it
to look elsewhere. Colours and patterns are allowed, of walls and lawns: beside a garment, the garment tells.
A word that is written like a name, with a capital inside a sentence, is taken for one.
"""

import re

_CLOTHES = """
apron bag backpack bandana beanie belt beret blazer blouse boot boots bra bracelet cap cardigan clad cloak
clothed clothes clothing coat collar corset costume dress dressed dresses dungarees earring earrings
footwear frock garment garments gloves gown handbag hat headscarf heels helmet hoodie jacket jeans jersey
jewelry jewellery jumper jumpsuit kimono leggings loafers miniskirt necklace necktie outfit outfits overalls
overcoat pants parka poncho pullover purse pyjamas raincoat robe sandals sari scarf shawl shirt shirts shoe
shoes shorts skirt sleeve sleeves sleeveless slippers sneakers socks stockings suit suspenders sweater
sweatpants sweatshirt swimsuit tee tights trainers trousers tshirt tunic turban turtleneck tuxedo uniform
vest waistcoat wear wearing wears wore worn
"""
_IDENTITY = """
actor actress adult aged aunt bald beard bearded blond blonde boy boyfriend bride brother brunette celebrity
child daughter elderly eyebrows father female gentleman girl girlfriend glasses grandfather grandmother
groom guy hair haired haircut he her hers herself him himself his husband lady male man men moustache mother
mustache she sister skin skinned son spectacles sunglasses teen teenage teenager uncle wife woman women
young
"""
_FORBIDDEN = frozenset((_CLOTHES + _IDENTITY).split())
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_BEGINS_SENTENCE = re.compile(r"(?:^|[.!?:\"])\s*$")


def forbidden_in(caption: str) -> list[str]:
    """The words of a caption that tell of clothes or of who it is, in their order; [] for a good one."""
    text = caption.replace("’", "'")
    found = []
    for match in _WORD.finditer(text):
        word = match[0]
        parts = {word.casefold().removesuffix("'s"), *re.split(r"[-']", word.casefold())}
        like_a_name = word[0].isupper() and word != "I" and not _BEGINS_SENTENCE.search(text[: match.start()])
        if parts & _FORBIDDEN or like_a_name:
            found.append(word)
    return found
