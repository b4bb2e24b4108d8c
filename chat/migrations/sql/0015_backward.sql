-- Lock: ACCESS EXCLUSIVE on this table alone. What is lost: which chat a client's own id means.

DROP TABLE IF EXISTS client_chats;
