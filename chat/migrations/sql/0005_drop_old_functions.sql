-- Functions of earlier states of this repository that nothing calls any more. Lock: no table's.

DROP FUNCTION IF EXISTS chat_messages_remember(), standalone_chat_messages_remember(),
    chat_messages_added(bigint, bigint), standalone_chat_messages_added(bigint, bigint),
    chat_messages_learn_added(bigint, bigint), standalone_chat_messages_learn_added(bigint, bigint),
    recall_terms(bigint, text, timestamptz), recall_content_term(bigint, text), recall_traits(text);
