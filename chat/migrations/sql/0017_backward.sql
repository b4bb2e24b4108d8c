-- Lock: ACCESS EXCLUSIVE on these tables alone. What is lost: the numbers of tokens.

DROP TABLE IF EXISTS user_token_usage;

DROP TABLE IF EXISTS token_usage;
