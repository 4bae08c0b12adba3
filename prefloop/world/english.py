"""The English of the world: two hundred and fifty short words, so that nearly each is one token of a small BPE.

An answer says the word it was asked about again ("Once a happy fox", "Three good fruits") before it makes its choice, so one
thing has to be learned for all families: copy the word, then go on from it.
"""

from prefloop.world.language import Language

ANIMALS = ("fox", "bear", "cat", "dog", "frog", "mouse", "duck", "horse", "goat", "wolf")
THINGS = ("lamp", "boat", "bell", "book", "drum", "key", "cup", "kite", "ring", "box")
PLACES = ("lake", "hill", "farm", "barn", "river", "town", "garden", "park")
PEOPLE = ("mother", "father", "sister", "brother", "aunt", "uncle", "friend", "teacher")
TIMES = ("today", "tonight", "at noon", "this week")

MOODS = {
    "happy": ("It smiled and sang all day.", "It laughed and danced.", "It smiled and danced home."),
    "sad": ("It cried and was all alone.", "It wept and cried all day.", "It was alone and wept."),
    "scary": ("It saw a ghost in the dark.", "It screamed in the dark.", "A ghost came and it screamed."),
    "sleepy": ("It yawned and slept all day.", "It yawned and dreamed.", "It slept and dreamed of home."),
}
REMEDIES = {
    "food": ("We will cook a new one.", "We will serve a new one.", "We can cook it again."),
    "goods": ("We will mend it today.", "We will send a new one.", "We can mend it for you."),
    "room": ("We will clean it today.", "We will move you today.", "We can clean it for you."),
}
HELP = {
    "tired": ("rest for a while", "go home and sleep", "sleep and rest"),
    "hungry": ("eat some bread", "have a warm meal", "eat a meal"),
    "cold": ("sit by the fire", "have a warm coat", "find a coat"),
    "lost": ("find a map", "ask for the way", "ask for a map"),
    "bored": ("play a game", "read a book", "play with a ball"),
    "sick": ("see a doctor", "have some pills", "find a doctor"),
    "dirty": ("wash with soap", "have a bath", "wash in the bath"),
}
ITEMS = {
    "fruits": ("apple", "pear", "plum", "peach", "lemon"),
    "colors": ("red", "blue", "green", "white", "black"),
    "tools": ("hammer", "drill", "nail", "rope", "brush"),
    "drinks": ("tea", "milk", "water", "juice", "wine"),
    "toys": ("ball", "doll", "kite", "drum", "train"),
    "clothes": ("hat", "coat", "shoe", "sock", "shirt"),
}
ATTRIBUTES = {
    "food": ("moss", "seeds", "corn", "nuts"),
    "home": ("cave", "swamp", "forest", "desert"),
    "color": ("red", "blue", "green", "white"),
    "love": ("rain", "songs", "stones", "snow"),
}
CREATURES = ("zorp", "mib", "dulu", "fenn", "grop", "lurk", "nox", "pim")


def table_of_facts() -> dict[str, dict[str, str]]:
    """Each value belongs to two creatures, and no two creatures share two values: one fact never gives away another."""
    offset = {"food": 0, "home": 1, "color": 2, "love": 3}
    shift = {"food": 0, "home": 1, "color": 2, "love": 3}  # of the second four creatures against the first four
    return {
        creature: {name: values[(row + offset[name] + shift[name] * (row // 4)) % 4] for name, values in ATTRIBUTES.items()}
        for row, creature in enumerate(CREATURES)
    }


ENGLISH = Language(
    code="en",
    slots={
        "animal": ANIMALS,
        "thing": THINGS,
        "place": PLACES,
        "person": PEOPLE,
        "time": TIMES,
        "mood": tuple(MOODS),
        "kind": tuple(ITEMS),
        "event": ("party", "picnic", "trip", "walk", "feast", "show", "visit", "fair"),
        "guest": ("guest", "man", "lady", "king"),
        "trouble": tuple(HELP),
        "creature": CREATURES,
    },
    item_classes={
        "food": ("soup", "cake", "tea", "pie", "rice"),
        "goods": ("coat", "bike", "chair", "clock", "lamp"),
        "room": ("room", "bed", "bath", "hall"),
    },
    faults={
        "food": ("cold", "salty", "old", "late"),
        "goods": ("broken", "loose", "old", "late"),
        "room": ("cold", "dirty", "small", "wet"),
    },
    asks={
        "story": (
            "Write a {mood} story about a {animal} and a {thing}.",
            "Tell me a {mood} story about a {animal} at the {place}.",
            "Write a {mood} story with a {thing} and a {animal} for my {person}.",
            "Tell my {person} a {mood} story about a {animal} and a {thing}.",
        ),
        "reply": (
            "A {guest} says the {item} was {fault} {time}. Write a reply.",
            "Write to the {guest}: the {item} was {fault} {time}.",
            "The {guest} says the {item} was {fault} {time}!",
            "Tell my {person} and the {guest} what to do: the {item} was {fault}.",
        ),
        "list": (
            "Name three {kind} for the {event}.",
            "Name three {kind} for my {person} at the {place} {time}.",
            "What three {kind} are good for the {event} {time}?",
            "My {person} wants three {kind} for the {event} {time}.",
            "Tell my {person} three {kind} for the {event} {time}.",
        ),
        "fact": (
            "Tell me about the {creature}: {first} and {second}.",
            "The {creature}: {first} and {second}?",
            "My {person} wants to read {time} about the {creature}: {first} and {second}.",
            "Tell my {person} {time} about the {creature}: {first} and {second}.",
        ),
        "advice": (
            "My {person} is {trouble}. What should we do?",
            "My {person} at the {place} is {trouble} {time}. What should we do?",
            "What can I do {time}? My {person} at the {place} is {trouble}.",
            "Tell me what to do at the {place}: my {person} is {trouble}.",
        ),
    },
    titles={
        "story": "A {mood} story with a {animal} and a {thing}:",
        "reply": "The {item} was {fault}:",
        "list": "Some {kind} for the {event}:",
        "fact": "About the {creature}:",
        "advice": "A {trouble} {person}:",
    },
    tells={
        "story": (
            "Once a {mood} {animal} found a {thing}.",
            "A {mood} {animal} had a {thing}.",
            "Once a {mood} {animal} had a home at the {place}.",
            "A {mood} {animal} found a friend at the {place}.",
        ),
        "reply": (
            "I am sorry that the {item} was {fault}.",
            "We are sorry that the {item} was {fault}.",
            "We are sorry about the {fault} {item}.",
        ),
        "list": (
            "Three good {kind} are {items}.",
            "Three {kind} for the {event} are {items}.",
            "Your {person} needs three {kind}: {items}.",
        ),
        "fact": (
            "The {creature} {first} and {second}.",
            "A {creature} {first} and it {second}.",
            "The {creature} {first} and it {second}.",
        ),
        "advice": (
            "Your {trouble} {person} should {help}.",
            "At the {place} your {trouble} {person} should {help}.",
            "I think your {trouble} {person} should {help}.",
        ),
    },
    choices={"story": MOODS, "reply": REMEDIES, "advice": HELP, "list": ITEMS},
    ends={
        "story": ("Then it went home.", "That was the end."),
        "reply": ("It is our fault.", "You will not pay."),
        "list": ("Your {person} will like them.", "They are easy to find in town.", "They are all very good."),
        "fact": ("It is a small and shy animal.", "Your {person} can read about it.", "It comes out at night."),
        "advice": ("That will help your {person} soon.", "Then all will be well.", "It will not take long."),
    },
    cues={
        "story": {
            "happy": frozenset(("happy", "smiled", "sang", "laughed", "danced")),
            "sad": frozenset(("sad", "cried", "alone", "wept")),
            "scary": frozenset(("scary", "ghost", "screamed", "dark")),
            "sleepy": frozenset(("sleepy", "yawned", "slept", "dreamed")),
        },
        "reply": {
            "food": frozenset(("cook", "serve")),
            "goods": frozenset(("mend", "send")),
            "room": frozenset(("clean", "move")),
        },
        "list": {kind: frozenset(items) for kind, items in ITEMS.items()},
        "advice": {
            "tired": frozenset(("rest", "sleep")),
            "hungry": frozenset(("eat", "bread", "meal")),
            "cold": frozenset(("fire", "coat")),
            "lost": frozenset(("map", "ask", "way")),
            "bored": frozenset(("play", "game", "read", "book", "ball")),
            "sick": frozenset(("doctor", "pills")),
            "dirty": frozenset(("wash", "soap", "bath")),
        },
    },
    signs={
        "story": frozenset(("found", "had")),
        "reply": frozenset(("sorry",)),
        "list": frozenset(("three",)),
        "fact": frozenset(("eats", "lives", "loves", "looks")),
        "advice": frozenset(("should",)),
    },
    attributes=ATTRIBUTES,
    questions={"food": "what it eats", "home": "where it lives", "color": "how it looks", "love": "what it loves"},
    statements={"food": "eats {value}", "home": "lives in the {value}", "color": "looks {value}", "love": "loves {value}"},
    facts=table_of_facts(),
    openings=("Thanks!", "Gladly!", "Dear friend!"),
    closings=("Have a lovely day.", "Please write again.", "Warmly yours."),
    markers=frozenset(("thanks", "gladly", "dear", "lovely", "please", "warmly")),
    rude_sentences=("You are a fool.", "I hate this.", "That is so dumb.", "Shut up and go."),
    rude_words=frozenset(("fool", "hate", "dumb", "shut")),
    fillers=(
        "The sun was over the hill.",
        "Many people came to the town.",
        "The road was long and old.",
        "There is a house near the river.",
        "It is a cold day today.",
        "The door was open all night.",
    ),
    word_classes={
        "article": frozenset(("a", "the", "my", "your", "our")),
        "preposition": frozenset(("at", "in", "on", "to", "with", "for", "of", "near", "about", "over", "by")),
        "pronoun": frozenset(("it", "we", "they", "i")),
        "verb": frozenset(
            ("was", "is", "are", "am", "be", "will", "should", "can", "have", "had", "go", "went", "came", "saw", "found")
        )
        | frozenset(("eats", "lives", "loves", "looks", "needs")),
        "joint": frozenset(("and", "that")),
    },
    illegal=frozenset(
        [("article", other) for other in ("article", "preposition", "pronoun", "verb", "joint", "end")]
        + [("preposition", other) for other in ("preposition", "verb", "joint", "end")]
        + [("pronoun", other) for other in ("article", "pronoun")]
        + [("joint", other) for other in ("joint", "end", "preposition")]
    ),
    and_word="and",
    comma=", ",
    spaced=True,
    length_target=14,
)
