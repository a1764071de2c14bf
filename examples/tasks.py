"""Two task types: a class that is its payload, and a function whose parameters are."""

from asyncio import sleep

from pydantic import Field

from asyncproc import Processable, TaskContext, task


class WordCount(Processable, retry=2):
    text: str = Field(min_length=1)

    def process(self, ctx: TaskContext) -> dict[str, int]:
        return {"words": len(self.text.split()), "attempt": ctx.attempt}


@task(name="Wait", priority=5)
async def wait(seconds: float) -> str:
    await sleep(seconds)
    return f"waited {seconds:g} s"
