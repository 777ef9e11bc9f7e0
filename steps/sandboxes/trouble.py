"""What keeps a command from being run."""

from steps.contracts.sandbox import ErrCode


class Trouble(Exception):
    """The command was not run, or what it did is not known. err_code is one that is worth another attempt, unless it is permanent.

    gone: there is no use in asking the same sandbox again.
    """

    def __init__(self, err_code: ErrCode, reason: str, *, permanent: bool = False, gone: bool = False) -> None:
        super().__init__(reason)
        self.err_code: ErrCode = err_code
        self.permanent = permanent
        self.gone = gone
