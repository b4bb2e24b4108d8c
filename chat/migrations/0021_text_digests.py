"""The index of texts' digests again: that of 0015_client_chats took the letter v for a space.

PostgreSQL 16 reads its E'\\v' as the letter v, 18 as a vertical tab. So /v1 found no text that
begins or ends in a v. The new index, standalone_messages_text, replaces standalone_messages_digest.

Lock: SHARE UPDATE EXCLUSIVE on standalone_chat_messages while an index is built or dropped, so
reads and writes go on; it waits for open transactions. Duration: of the build, 5 s for a million
messages. Servers look for chats by their texts only while the index of their own version exists,
and notice a change within a minute: until then a client without an id may begin a new chat. Back:
builds the old index, then drops the new one. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import CreateIndex, DropIndex

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [("chat", "0020_user_writes")]
    operations = [
        CreateIndex("standalone_messages_text", SQL / "0021_index.sql"),
        DropIndex("standalone_messages_digest", SQL / "0021_old_index.sql"),
    ]
