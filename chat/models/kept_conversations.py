"""What retention needs to know. The tables come with chat 0018_retention."""

from django.db import models

from retrieval.memory_model import MemoryModel


class KeptConversation(MemoryModel):
    """A conversation that its user keeps; exactly one of ``passage_id`` and ``chat_id`` is set.

    Foreign keys of PostgreSQL's delete the row with its conversation, whichever version does that.
    """

    id = models.BigAutoField(primary_key=True)
    user_id = models.BigIntegerField()
    chat_id = models.BigIntegerField(null=True)
    passage_id = models.BigIntegerField(null=True)

    objects = models.Manager["KeptConversation"]()

    class Meta(MemoryModel.Meta):
        app_label = "retrieval"  # whose tables are made by SQL alone
        db_table = "kept_conversations"


class RetentionState(MemoryModel):
    """The only row: when an operator ran expire_conversations first, and when servers last did."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    begun_at = models.DateTimeField()
    swept_at = models.DateTimeField(null=True)

    objects = models.Manager["RetentionState"]()

    class Meta(MemoryModel.Meta):
        app_label = "retrieval"
        db_table = "retention_state"
