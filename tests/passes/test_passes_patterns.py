"""Globs in the options of passes."""

import pytest

from zc.errors import ZcError
from zc.passes.patterns import first_match, require_matches

WORDS = ["/layer1/conv/Conv", "/layer2/conv/Conv", "head.fc"]


def test_the_first_pattern_that_matches_is_named() -> None:
    assert first_match(["/layer1/conv/Conv", "Conv"], ["x*", "Con?", "/layer1/*"]) == "Con?"
    assert first_match(["Conv"], ["conv"]) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/layer3/*", r"skip=/layer3/\* matches no node \(did you mean '/layer2/\*'\?\); \* and \? stand for anything"),
        ("haed.fc", r"matches no node \(did you mean 'head.fc'\?\)"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest(pattern: str, message: str) -> None:
    require_matches("skip", ["head*"], WORDS, "node")
    with pytest.raises(ZcError, match=message):
        require_matches("skip", ["head*", pattern], WORDS, "node")
