import shlex

from zc.pipeline.spec import parse


def test_help_lists_the_commands(zc) -> None:
    done = zc("--help")
    assert done.code == 0
    assert "opt " in done.out
    assert "replay " in done.out


def test_a_mistyped_command_offers_the_nearest(zc) -> None:
    done = zc("opts")
    assert done.code == 2
    assert "no command 'opts' (did you mean 'opt'?)" in done.err


def test_a_missing_argument_names_the_command_to_ask(zc) -> None:
    done = zc("opt")
    assert done.code == 2
    assert "zc opt --help" in done.err


def test_passes_lists_them_all(zc) -> None:
    done = zc("passes")
    assert done.code == 0
    for name in ("clean", "fold", "prune", "quantize"):
        assert f"\n{name} " in f"\n{done.out}"


def test_passes_explains_one(zc) -> None:
    done = zc("passes", "prune")
    assert done.code == 0
    assert "ratio" in done.out
    assert "before" in done.out.lower()
    assert "after" in done.out.lower()


def test_an_unknown_pass_offers_the_nearest(zc) -> None:
    done = zc("passes", "prun")
    assert (done.code, "did you mean 'prune'" in done.err) == (2, True)


def test_no_command_at_all_shows_the_help_as_it_is(zc) -> None:
    done = zc()
    assert done.code == 2
    assert "\n  opt " in done.err


def test_an_option_that_is_a_list_has_no_default(zc) -> None:
    assert "text+... (default none)" in zc("passes", "prune").out


def test_the_pipelines_in_the_examples_of_the_help_are_pipelines(zc) -> None:
    lines = [
        line for line in zc("opt", "--help").out.splitlines() if line.startswith("    zc opt ") and "@" not in line
    ]
    for line in lines:
        words = shlex.split(line)
        pipeline = parse(words[words.index("-p") + 1])
        for one in pipeline.passes:  # a space would be part of a pattern: several stand with + between them
            assert not any(" " in pattern for pattern in getattr(one, "skip", ()))
    assert len(lines) == 6
