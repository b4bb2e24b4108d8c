-- Drops recall's functions. Lock: none on any table.

DROP FUNCTION IF EXISTS recall_messages_1(bigint, bigint[], float8[], boolean[], bigint[], real[],
    text, float8, float8, float8, integer);

DROP FUNCTION IF EXISTS is_tainted_1(bigint, text, bigint, jsonb, timestamptz);

DROP FUNCTION IF EXISTS recall_candidates_1(bigint, text, bit, text, bigint[], bigint[],
    timestamptz, timestamptz, boolean, integer, integer, integer, integer, integer, integer,
    float8);

DROP FUNCTION IF EXISTS recall_traits_1(smallint, boolean, boolean, bit, smallint, boolean,
    boolean, bit, bit, bit, smallint);

DROP FUNCTION IF EXISTS recall_shows_1(bigint, timestamptz, boolean, timestamptz, timestamptz,
    boolean, integer);
