"""Checks the pure parts of debian/index.py: python3 -m unittest nix/tests/test_index.py"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "debian"))
sys.dont_write_bytecode = True
import index  # noqa: E402


class Relations(unittest.TestCase):
    def test_versions_architectures_and_alternatives_are_told_apart(self):
        field = "libc6 (>= 2.36), perl:any [amd64], awk | gawk (<< 9)"
        self.assertEqual(index.relations(field), [["libc6"], ["perl"], ["awk", "gawk"]])

    def test_absent_field_has_none(self):
        self.assertEqual(index.relations(""), [])


class ChosenDependencies(unittest.TestCase):
    def choose(self, depends, **others):
        controls = {"it": {"Depends": depends}, **others}
        return index.chosen_dependencies(controls)["it"]

    def test_first_alternative_of_the_solution_wins(self):
        self.assertEqual(self.choose("absent | b | a", a={}, b={}), ["b"])

    def test_virtual_package_is_its_provider(self):
        self.assertEqual(self.choose("mail", m={"Provides": "mail (= 1), other"}), ["m"])

    def test_pre_dependencies_count_and_repetitions_do_not(self):
        controls = {"it": {"Pre-Depends": "b, a", "Depends": "b"}, "a": {}, "b": {}}
        self.assertEqual(index.chosen_dependencies(controls)["it"], ["a", "b"])

    def test_installation_helpers_are_dropped_with_their_alternatives(self):
        self.assertEqual(self.choose("debconf | other", debconf={}, other={}), [])

    def test_itself_is_no_dependency(self):
        self.assertEqual(self.choose("it"), [])


class Graph(unittest.TestCase):
    edges = {"git": ["libc"], "libc": ["gcc"], "gcc": ["libc"], "loner": []}

    def test_mutual_dependence_is_a_cycle_and_its_dependents_are_not_in_it(self):
        self.assertEqual(index.cycles(self.edges), [["gcc", "libc"]])

    def test_reachable_includes_the_roots_and_ends_on_cycles(self):
        self.assertEqual(index.reachable(self.edges, ["git"]), {"git", "libc", "gcc"})


class Parsing(unittest.TestCase):
    def test_epochs_are_escaped_in_file_names(self):
        line = "'http://mirror/git_2%2b1.deb' git_1%3a2+1_amd64.deb 7 SHA256:00"
        self.assertEqual(
            index.parse_uri_line(line), ("git", ("1:2+1", "http://mirror/git_2%2b1.deb"))
        )

    def test_stanzas_lose_only_continuation_lines(self):
        text = "Package: a\nDescription: short\n long: er\nSize: 1\n\nPackage: b\n\n"
        self.assertEqual(
            list(index.parse_stanzas(text)),
            [{"Package": "a", "Description": "short", "Size": "1"}, {"Package": "b"}],
        )


if __name__ == "__main__":
    unittest.main()
