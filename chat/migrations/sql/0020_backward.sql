-- Lock: ACCESS EXCLUSIVE on this table alone. What is lost: nothing that users wrote.

DROP TABLE IF EXISTS user_writes;
