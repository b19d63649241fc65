"""Training prompts name what the scene shows, and some scenes are kept from training."""

import random

from tools.demo_model.palette import COLORS
from tools.demo_model.products import OBJECTS
from tools.demo_model.prompts import chinese_prompt, english_prompt
from tools.demo_model.scenes import Scene, held_out, random_scene, training_scene, unseen_scene
from tools.demo_model.words import COLOR_WORDS, NOUNS


def test_every_object_and_colour_has_words() -> None:
    assert set(NOUNS) == set(OBJECTS)
    assert set(COLOR_WORDS) == set(COLORS)
    for noun in NOUNS.values():
        assert noun.english
        assert noun.chinese
        assert noun.measures
        assert noun.color in COLORS


def test_prompts_name_object_and_background() -> None:
    rng = random.Random(3)
    for _ in range(200):
        scene = random_scene(rng)
        noun, color = NOUNS[scene.obj], COLOR_WORDS[scene.color]
        english, chinese = english_prompt(scene, rng).lower(), chinese_prompt(scene, rng)
        assert any(word in english for pair in noun.english for word in pair), english
        assert any(word in chinese for word in noun.chinese), chinese
        if scene.color != noun.color:
            assert any(word in english for word in color[0]), english
            assert any(word in chinese for word in color[1]), chinese


def test_more_filler_makes_a_longer_prompt() -> None:
    scene = Scene("mug", "red", "black")
    assert len(english_prompt(scene, random.Random(1), 9)) > len(english_prompt(scene, random.Random(1), 0)) + 60


def test_a_tenth_of_the_triples_is_held_out() -> None:
    triples = [Scene(o, c, b) for o in OBJECTS for c in COLORS for b in COLORS if c != b]
    assert 0.07 < sum(map(held_out, triples)) / len(triples) < 0.13
    rng = random.Random(5)
    assert not any(held_out(training_scene(rng)) for _ in range(50))
    assert all(held_out(unseen_scene(rng)) for _ in range(50))
