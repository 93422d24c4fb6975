"""Users that Nix builds as are made and removed by the system's own programs, on files of the test's own."""

import os
import pathlib
import subprocess
import unittest

SETUP = pathlib.Path(__file__).parent

# The machine never sees them: this /etc is in a mount namespace.
SCRIPT = """
mount -t tmpfs tmpfs /mnt
cp -a /etc/. /mnt/
mount --bind /mnt /etc
. "$1/common.sh"
. "$1/nix.sh"
BUILD_GROUP=nixgatetest BUILD_USERS=3 BUILD_USER_COMMENT="nixgate test user"
there() { getent passwd | grep --only-matching "^$BUILD_GROUP[0-9]*" | xargs; }
make_build_users
setpriv --reuid nixgatetest2 --regid nixgatetest --clear-groups sleep 1000 &
trap 'kill $! 2>/dev/null || true' EXIT
until [[ $(stat --format=%U "/proc/$!") == nixgatetest2 ]]; do sleep 0.01; done
remove_build_users
echo "at first: $(there)"
kill $!
wait $! || true
remove_build_users
echo "then: $(there)$(getent group "$BUILD_GROUP" || true)"
"""


@unittest.skipUnless(os.geteuid() == 0, "takes root")
class BuildUsers(unittest.TestCase):
    def test_a_user_that_runs_something_keeps_no_other_from_being_removed(self):
        command = ["unshare", "--mount", "bash", "-euc", SCRIPT, "bash", SETUP]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.stdout, "at first: nixgatetest2\nthen: \n", done.stderr)
        self.assertIn("cannot remove the users nixgatetest2 ", done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
