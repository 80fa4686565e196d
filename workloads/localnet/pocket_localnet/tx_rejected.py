"""The error of a rejected transaction."""


class TxRejected(Exception):
    """A transaction rejected with an ABCI code, codespace and log."""

    def __init__(self, code: int, codespace: str, log: str) -> None:
        super().__init__(log)
        self.code = code
        self.codespace = codespace
        self.log = log


def handler_error(index: int, log: str, status: str = "FailedPrecondition") -> TxRejected:
    """Return a message handler's error.

    It has code 1, codespace `undefined` and details in the text.
    """
    text = f"failed to execute message; message index: {index}: rpc error: code = {status} desc = {log}"
    return TxRejected(1, "undefined", text)
