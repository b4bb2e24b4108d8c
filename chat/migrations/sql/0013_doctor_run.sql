-- The last run of rag_doctor from the admin's page, so that every process can show it. One row.
-- Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS doctor_run (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    at timestamptz NOT NULL,
    who text NOT NULL,
    findings jsonb NOT NULL
);
