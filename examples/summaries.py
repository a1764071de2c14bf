"""Ray Serve's own task consumer with asyncproc below it: post a text, look at its summary later.

Once the system runs (`asyncproc up`), on the same Ray, which asks for its token:

    RAY_AUTH_MODE=token RAY_ADDRESS=auto serve run examples.summaries:app --name summaries --route-prefix /summaries
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from ray.serve.schema import CeleryAdapterConfig, TaskProcessorConfig
from ray.serve.task_consumer import instantiate_adapter_from_config, task_consumer, task_handler

fastapi_app = FastAPI(title="Summaries")

TASK_PROCESSOR_CONFIG = TaskProcessorConfig(
    queue_name="summaries",
    adapter="asyncproc.serve.AsyncprocAdapter",  # the one line that is not as it would be with Celery
    adapter_config=CeleryAdapterConfig(
        broker_url="redis://127.0.0.1:6379/0",  # passed over
        backend_url="redis://127.0.0.1:6379/0",
    ),
    max_retries=3,
    failed_task_queue_name="failed_summaries",
)


class Text(BaseModel):
    text: str
    max_sentences: int = 1


@serve.deployment(num_replicas=2, max_ongoing_requests=5, ray_actor_options={"num_cpus": 0})
@task_consumer(task_processor_config=TASK_PROCESSOR_CONFIG)
class Summarizer:
    """Works in the background."""

    @task_handler(name="summarize")
    def summarize(self, text: str, max_sentences: int = 1) -> dict[str, Any]:
        sentences = [sentence.strip() for sentence in text.split(".") if sentence.strip()]
        if not sentences:
            raise ValueError("there is nothing to summarize")
        return {"summary": ". ".join(sentences[:max_sentences]), "word_count": len(text.split())}


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(fastapi_app)
class Api:
    """Takes texts, and says how far their summaries are."""

    def __init__(self, task_processor_config: TaskProcessorConfig, handler: Any) -> None:
        self.adapter = instantiate_adapter_from_config(task_processor_config)

    @fastapi_app.post("/process")
    def process(self, request: Text) -> dict[str, Any]:
        task = self.adapter.enqueue_task_sync(
            task_name="summarize", kwargs={"text": request.text, "max_sentences": request.max_sentences}
        )
        return {"task_id": task.id, "status": task.status}

    @fastapi_app.get("/status/{task_id}")
    def get_status(self, task_id: str) -> dict[str, Any]:
        status = self.adapter.get_task_status_sync(task_id)
        return {
            "task_id": task_id,
            "status": status.status,
            "result": status.result if status.status == "SUCCESS" else None,
            "error": str(status.result) if status.status == "FAILURE" else None,
        }


app = Api.bind(TASK_PROCESSOR_CONFIG, Summarizer.bind())  # type: ignore[attr-defined]  # what decorators make of them
