"""After the storm: the tables, the prompts, the payments and the logs, for all users."""

import re
from collections.abc import Sequence

import numpy as np
from psycopg import sql

from fake_openai.vectors import vector_of
from tests.storm.expectations import Diary
from tests.storm.fakes import KEY
from tests.storm.faults import Storm
from tests.storm.findings import Findings
from tests.storm.marks import MARK, user_of, users_in
from tests.storm.payments import check_payments
from tests.storm.services import SECRET, Site

DIMENSIONS = 1536
MIN_COSINE = 0.9999  # of single precision
TABLES = ("standalone_chat_messages", "chat_messages")
MESSAGES = sql.SQL("""
    SELECT m.id, u.username, m.content, m.status, m.embedding::text
    FROM {} m JOIN auth_user u ON u.id = m.user_id
""")
RUNNING = "SELECT count(*) FROM running_answers"
STREAMING = """
    SELECT (SELECT count(*) FROM chat_messages WHERE status = 'streaming')
        + (SELECT count(*) FROM standalone_chat_messages WHERE status = 'streaming')
        + (SELECT count(*) FROM memory_imports WHERE status = 'running')
"""
# Of the storm's own making, not to be found in a log.
LOG_LINES = re.compile("|".join([MARK.pattern, re.escape(KEY), re.escape(SECRET)]))
# Lines of errors that no part expects.
BUG = re.compile(
    "Traceback|ERROR: (Internal Server Error|An answer failed|Heartbeat failed"
    r"|A message could not be embedded|Import \d+ failed$)"
)


def verify_site(site: Site, storm: Storm, diaries: Sequence[Diary], findings: Findings) -> None:
    """All checks that are not of one user."""
    _verify_rows(site, findings)
    _verify_prompts(site, {diary.user: diary for diary in diaries}, findings)
    generations = {mark: times for diary in diaries for mark, times in diary.generations.items()}
    model, embedder = site.model.calls, site.embedder.calls
    check_payments(model, generations, storm.disruptions, findings, rule="answers paid once")
    texts = [call for call in embedder if is_one_messages(call.paid_for)]
    check_payments(texts, {}, storm.disruptions, findings, rule="embeddings paid once")
    _verify_logs(site, findings)


def is_one_messages(text: str) -> bool:
    """Whether only one message has the text: no search, and no answer stopped before its mark."""
    return bool(MARK.match(text) or ("I heard" in text and MARK.search(text)))


def _verify_rows(site: Site, findings: Findings) -> None:
    """Each row is its user's own, and its embedding is its text's."""
    for table in TABLES:
        statement = MESSAGES.format(sql.Identifier(table)).as_string()
        for pk, username, content, status, embedding in site.database.run(statement):
            user = int(username.removeprefix("user "))
            if users_in(content) - {user}:
                findings.add("only own texts", user, pk, f"in {table}")
            if status == "streaming":
                findings.add("no answer streams for ever", user, pk, f"in {table}")
            if embedding and not _is_vector_of(content, embedding):
                findings.add("embeddings equal their texts", user, pk, f"in {table}: {content}")
            findings.counts["embeddings verified"] += bool(embedding)
    if rows := site.database.run(RUNNING)[0][0]:
        findings.add("no answer streams for ever", None, "", f"{rows} rows in running_answers")


def _is_vector_of(content: str, embedding: str) -> bool:
    stored = np.array(embedding.strip("[]").split(","), dtype=np.float64)
    return bool(stored @ np.array(vector_of(content, DIMENSIONS)) > MIN_COSINE)


def _verify_prompts(site: Site, diaries: dict[int, Diary], findings: Findings) -> None:
    """No prompt held, as a memory, what was forgotten before its turn was asked."""
    for prompt in site.model.prompts:
        diary = diaries.get(user_of(prompt.question)) if prompt.question else None
        times = diary.sent.get(prompt.question, []) if diary else []
        sent_at = max((at for at in times if at <= prompt.arrived), default=prompt.arrived)
        for mark in prompt.memories:
            if diary and diary.forgotten.get(mark, sent_at) < sent_at:
                detail = f"{mark} was a memory of a prompt"
                findings.add("forgotten stays forgotten", diary.user, prompt.question, detail)


def _verify_logs(site: Site, findings: Findings) -> None:
    """No content, key or token in a log, and no error that no part expects."""
    secret = re.compile("|".join([LOG_LINES.pattern, *map(re.escape, site.tokens)]))
    for line in "\n".join(site.logs()).splitlines():
        if match := secret.search(line):
            findings.add("logs hold no secret", None, match[0], line[:300])
        if BUG.match(line):
            findings.add("no bug", None, "", line[:300])
        findings.count("log lines")
