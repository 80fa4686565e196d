"""How the chain says no."""


class TxRejected(Exception):
    """A transaction refused with an ABCI code, codespace and log."""

    def __init__(self, code: int, codespace: str, log: str) -> None:
        super().__init__(log)
        self.code = code
        self.codespace = codespace
        self.log = log


def handler_refusal(index: int, log: str, status: str = "FailedPrecondition") -> TxRejected:
    """What message handlers answer: code 1, codespace `undefined`, everything in the text."""
    text = f"failed to execute message; message index: {index}: rpc error: code = {status} desc = {log}"
    return TxRejected(1, "undefined", text)
