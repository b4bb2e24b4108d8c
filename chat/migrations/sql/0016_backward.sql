-- Lock: ACCESS EXCLUSIVE on these tables alone. What is lost: the state, and a day of figures.

DROP TABLE IF EXISTS rag_rollout;

DROP TABLE IF EXISTS recall_times;
