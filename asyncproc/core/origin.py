"""Who said a value that several may say."""

from enum import StrEnum


class Origin(StrEnum):
    TASK = "task"
    STORED = "stored"
    CONFIG = "config"
    CODE = "code"

    @property
    def letter(self) -> str:
        """As a task's row has it: a word for each of its values would be most of the row."""
        return "f" if self is Origin.CONFIG else self.value[0]
