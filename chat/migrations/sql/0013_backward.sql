-- Lock: ACCESS EXCLUSIVE on this table alone.

DROP TABLE IF EXISTS doctor_run;
