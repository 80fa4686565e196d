"""A signer without keys."""

from structlog.testing import capture_logs

from pocket.keys.keyring import Keyring
from pocket_signer.signed_roots import SignedRoots
from pocket_signer.signer_server import SignerServer
from signing import POLICY, keys_folder
from world import address


def test_a_signer_without_keys_warns_once_each_time_that_the_last_one_goes(tmp_path):
    folder = keys_folder(tmp_path / "keys")
    roots = SignedRoots(tmp_path / "roots.sqlite")
    server = SignerServer(Keyring(folder, {}), roots, POLICY, lambda: 0)

    def warnings():
        with capture_logs() as rows:
            server.reload_keys()
        return [row["event"] for row in rows if row["event"].startswith("no key is loaded")]

    seen = [warnings(), warnings()]
    keys_folder(folder, "alice")
    seen.append(warnings())
    (folder / address("alice")).unlink()
    seen += [warnings(), warnings()]
    roots.close()
    assert [len(row) for row in seen] == [1, 0, 0, 1, 0]
