"""python3 -m unittest scripts/test_check_imports.py"""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import check_imports


class Imports(unittest.TestCase):
    def wrong(self, files, order):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path, source in {"lib.rs": "", **files}.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(source)
            return list(check_imports.wrong(folder, order))

    def test_who_imports_from_below_is_right(self):
        files = {
            "top.rs": "use crate::low::{self, deep::{Name as Other, More}};",
            "low/mod.rs": "pub(crate) mod deep;\nuse deep::Name;",
            "low/deep.rs": "use super::thing;",
        }
        self.assertEqual(self.wrong(files, ["top", "low"]), [])

    def test_an_import_from_above_is_named(self):
        files = {"top.rs": "", "low/mod.rs": "", "low/deep.rs": "fn f() -> crate::top::Name {}"}
        [complaint] = self.wrong(files, ["top", "low"])
        self.assertIn("low::deep imports top", complaint)

    def test_a_circle_of_files_is_named(self):
        files = {
            "a/mod.rs": "",
            "a/b.rs": "use super::c::C;",
            "a/c.rs": "pub(crate) use crate::a::d::{\n    D,\n};",
            "a/d.rs": "use crate::a::b;",
        }
        [complaint] = self.wrong(files, ["a"])
        self.assertIn("a::b → a::c → a::d → a::b", complaint)

    def test_what_only_tests_import_is_passed_over(self):
        test = "#[cfg(test)]\nmod tests {\n    use crate::top::Top;\n    fn f() { if x {} }\n}\n"
        files = {"top.rs": "use crate::low;", "low.rs": test, "low/tests.rs": "use crate::top;"}
        self.assertEqual(self.wrong(files, ["top", "low"]), [])
        files["low.rs"] = test + "use crate::top;"
        self.assertNotEqual(self.wrong(files, ["top", "low"]), [])

    def test_each_module_has_its_row_and_no_other_has(self):
        complaints = self.wrong({"here.rs": ""}, ["gone"])
        self.assertEqual(len(complaints), 2)
        self.assertIn("here is missing", complaints[0])
        self.assertIn("gone has a row", complaints[1])


if __name__ == "__main__":
    unittest.main()
