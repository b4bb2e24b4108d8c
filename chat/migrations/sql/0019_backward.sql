-- Lock: ACCESS EXCLUSIVE on these tables alone. What is lost: who embeds what at this moment.

DROP TABLE IF EXISTS embedding_claims;

DROP TABLE IF EXISTS embedding_rate;
