-- Drops the functions of 0010_functions.sql. Lock: none on any table.

DROP FUNCTION IF EXISTS recall_messages_2(bigint, bigint[], float8[], float8[], bigint[], real[],
    text, float8, float8, integer);

DROP FUNCTION IF EXISTS tainted_by_1(bigint, bigint, jsonb, timestamptz);

DROP FUNCTION IF EXISTS recall_message_1(bigint, bigint);
