"""Embed answers and edits for the servers: the worker of the queue that EMBED_QUEUE names.

Servers put a job into the queue for each answer and each edit; workers embed many of them in one
call. Start as many workers as you like: no message is embedded twice. A worker also looks every
20 s for messages without a job, so it embeds everything that is pending, old messages too: see
first what that costs, by rag_cost_estimate. At its start and once a day one of the workers looks
for messages that memory does not know, from before its migrations, and indexes their words.

  EMBED_QUEUE=procrastinate manage.py migrate          the engine's tables, once
  EMBED_QUEUE=procrastinate manage.py embed_worker
  EMBED_QUEUE=celery CELERY_BROKER_URL=redis://127.0.0.1:6379/0 manage.py embed_worker

The servers need the same settings. While the broker, the database or the embedding service is away
the worker waits, and says so once.
METRICS_PORT and METRICS_TOKEN: where it serves its metrics (docs/observability.md).
Locks: rows that it stores vectors in or indexes, for 0.1 s at a time; an edit waits for that.
Exit code: 1 wrong settings; 130, 143 stopped by SIGINT, SIGTERM.
"""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from retrieval.backfill import claims
from retrieval.db import NoMemory
from retrieval.embed_queue import jobs
from retrieval.embed_queue.worker import EmbedWorker
from retrieval.embeddings import embedding_service
from retrieval.management.backfill_progress import silence_logs
from retrieval.management.cancellation import cancel_on_signal
from retrieval.management.operator_command import OperatorCommand
from retrieval.telemetry import serve_metrics

INLINE = (
    "EMBED_QUEUE=inline: the servers embed by themselves. Set EMBED_QUEUE=procrastinate, or celery"
    " and CELERY_BROKER_URL, for the servers and for this command"
)
NO_MODEL = "no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local"


class Command(OperatorCommand):
    has_json_output = False

    def run(self, **_options: Any) -> None:
        if settings.EMBED_QUEUE == jobs.INLINE:
            raise CommandError(INLINE)
        if embedding_service.model_name() is None:
            raise CommandError(NO_MODEL)
        if not claims.has_table():
            raise NoMemory
        serve_metrics()
        worker = EmbedWorker()
        stopped = "stopped: what is pending waits for the next worker"
        with silence_logs(), cancel_on_signal(worker.limits.cancel, message=stopped):
            self.stdout.write(f"Embedding for the queue {settings.EMBED_QUEUE}; Ctrl-C stops it")
            worker.run()
