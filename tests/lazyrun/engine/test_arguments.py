"""The arguments of a launch are detectron2's."""

from detectron2.engine import default_argument_parser

from lazyrun.engine.arguments import launch_parser


def test_options_and_defaults_are_those_of_detectron2():
    def facts(parser):
        return [
            (type(action), action.option_strings, action.dest, action.default, action.type, action.nargs)
            for action in parser._actions
        ]

    ours = launch_parser("what it does", "examples")
    assert facts(ours) == facts(default_argument_parser())
    assert "what it does" in ours.format_help() and ours.format_help().rstrip().endswith("examples")
