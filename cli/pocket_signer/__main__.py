"""Run the signer without relayctl, such as in its image.

Usage: `python -m pocket_signer serve`.
"""

from pocket_signer.signer_commands import signer

if __name__ == "__main__":
    signer(prog_name="python -m pocket_signer")
