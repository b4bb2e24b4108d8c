"""The server's entry point: start-up, shutdown, and requests.

Run by `gunicorn verse.asgi:application`, or by any ASGI server with the lifespan protocol.
"""

import asyncio
import gc
import logging
import os
import threading
from contextlib import suppress
from importlib import import_module

if os.environ.get("DJANGO_SETTINGS_MODULE", "verse.settings") == "verse.settings":
    os.environ["DJANGO_SETTINGS_MODULE"] = "verse.server_settings"

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import Error

django.setup(set_prefix=False)

from chat.answers import periodic, runner
from chat.memory.embed import finish_embedding_jobs
from chat.transfer import background
from retrieval import event_loop, log_counts, steps
from retrieval.db_errors import error_name
from retrieval.embed_queue import jobs
from retrieval.telemetry import log_context
from retrieval.token_count import encoding
from verse import request_traces
from verse.asgi_handler import OneStepHandler
from verse.asgi_messages import Receive, Scope, Send
from verse.body_limit import limit_body
from verse.health import answer_probes, direct_connection
from verse.last_slash import add_last_slash
from verse.logs import log_failed_thread
from verse.mcp_endpoint import serve_mcp
from verse.metrics_endpoint import serve_metrics
from verse.static_files import serve_static

logger = logging.getLogger("verse")
# After the answers have ended; embeddings that take longer stay pending.
EMBEDDING_GRACE_S = 2.0
COUNTS_GRACE_S = 1.0  # while the database is away they are lost
STEPS_GRACE_S = 2.0
NO_KEY = "No OpenAI API key configured - RAG functionality will be disabled"
request_traces.start()
answer_request = answer_probes(
    serve_metrics(serve_static(limit_body(serve_mcp(add_last_slash(OneStepHandler())))))
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        log_context.begin_request()
        await answer_request(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Start, and at shutdown give running answers SHUTDOWN_GRACE to finish."""
    await receive()
    event_loop.use_running_loop()
    await sync_to_async(start)()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await end()
    await send({"type": "lifespan.shutdown.complete"})


async def end() -> None:
    """Drain answers and imports, then end what is left: embedding calls, steps, connections."""
    grace_s = settings.SHUTDOWN_GRACE_S
    await asyncio.gather(runner.drain(grace_s), background.drain(grace_s))
    await asyncio.to_thread(finish_embedding_jobs, timeout_s=EMBEDDING_GRACE_S)
    with suppress(TimeoutError):
        await asyncio.wait_for(periodic.flush_counts(), COUNTS_GRACE_S)
    await event_loop.end()
    await asyncio.to_thread(steps.join, STEPS_GRACE_S)
    await request_traces.end()


def start() -> None:
    """Load the code, check the settings, log warnings. Starts without a database too."""
    threading.excepthook = log_failed_thread
    logging.getLogger().addHandler(log_counts.COUNTER)
    # Takes about a second. Otherwise the first requests would do it while others wait.
    import_module(settings.ROOT_URLCONF)
    import_module("retrieval.openai_client")
    if jobs.has_workers():
        jobs.engine()
    encoding()
    try:
        with direct_connection() as direct:
            direct.ensure_connection()
    except Error as error:
        logger.warning("The database cannot be reached yet: %s", error_name(error))
    if settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY:
        logger.warning(NO_KEY)
    runner.runner()  # starts it, so that abandoned answers are ended soon
    # What was loaded so far stays, so the garbage collector need not look through it.
    gc.collect()
    gc.freeze()
    logger.info("Application startup complete.")
