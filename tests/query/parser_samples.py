"""Statements of every kind that the parser's tests share."""

from __future__ import annotations

STATEMENTS = [
    "SELECT 1",
    "SELECT topic, count(*) FROM notes WHERE created > ? GROUP BY topic HAVING count(*) > 1"
    " ORDER BY 2 DESC NULLS LAST, topic ASC LIMIT 10 OFFSET 5;",
    "select distinct n.*, max(a, b) AS biggest, 'x' AS 'y' from notes AS n limit 5, 10",
    "SELECT a FROM x, y AS z LEFT OUTER JOIN w ON z.i = w.i JOIN v USING (a, b)",
    "SELECT * FROM (SEARCH notes MATCH ? K 100) AS hits GROUP BY topic",
    "SELECT * FROM :table",
    "SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3 ORDER BY 1 LIMIT 3",
    "WITH a AS (SELECT 1), b (x, y) AS (VALUES (1, 2)) SELECT * FROM a, b",
    "WITH RECURSIVE a AS (SELECT 1) DELETE FROM t",
    "VALUES (1, 'a'), (2, 'b')",
    "SEARCH notes NEAR ? MATCH 'dark mode' K 10",
    "SEARCH notes NEAR embedding :q MATCH body :t WHERE topic = :u AND created > 3 K 10 OFFSET 2"
    " FUSION weighted (vector = 0.7, text = 0.3) SCORE splat RECALL 0.95 MIN SCORE -0.3"
    " DECAY HALF LIFE 30 DAYS ON created TEMPERATURE 0.2 SEED 7 DIVERSITY 0.5 AS OF 17"
    " RETURNING id, body, score, distance, bm25, energy, confidence, rank",
    "SEARCH notes FOR 'plain words' EXACT LIMIT 5 RETURNING *",
    "SEARCH notes NEAR (SELECT embedding FROM notes WHERE id = 1) PROBES 16 FUSION vector_only",
    "SEARCH notes NEAR [0.1, -2, 3e-4] FUSION rrf (k = 60, depth = 400) SCORE similarity",
    "INSERT INTO notes (id, body, embedding) VALUES (?, ?, ?), (?, ?, [1, 2])",
    "INSERT INTO notes VALUES (1) ON CONFLICT (id) DO UPDATE SET x = excluded.x, y = 2 WHERE x > 1"
    " RETURNING id",
    "INSERT INTO notes VALUES (1) ON CONFLICT DO NOTHING",
    "INSERT OR REPLACE INTO notes VALUES (1)",
    "REPLACE INTO notes (a) VALUES (1)",
    "INSERT INTO notes DEFAULT VALUES",
    "INSERT INTO notes (a, b) SELECT a, b FROM old WHERE a > 1 RETURNING *",
    "UPDATE OR IGNORE notes SET topic = ?, n = n + 1 WHERE id = ? RETURNING id",
    "DELETE FROM notes WHERE id IN (1, 2) RETURNING *",
    "CREATE COLLECTION IF NOT EXISTS notes (id TEXT PRIMARY KEY, body TEXT FULLTEXT, n INTEGER"
    " NOT NULL DEFAULT -1, r DOUBLE PRECISION NULL DEFAULT (1 + 2), s VARCHAR(20) UNIQUE,"
    " v VECTOR(384, f16) METRIC cosine, e VECTOR(8) FROM body ENCODER 'minilm',"
    " t TEXT FULLTEXT (stem = 'english', stop = 'english')) WITH (dedup = 'body')",
    "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b, UNIQUE (b)) STRICT",
    "CREATE TABLE t (a INT, b TEXT COLLATE BINARY, PRIMARY KEY (a)) WITHOUT ROWID",
    "DROP TABLE IF EXISTS notes",
    "CREATE UNIQUE INDEX IF NOT EXISTS i ON notes USING btree (topic DESC) WITH (a = 1)",
    "CREATE INDEX i ON notes (topic) USING bm25",
    "DROP INDEX i",
    "BEGIN",
    "BEGIN IMMEDIATE TRANSACTION",
    "COMMIT TRANSACTION",
    "END",
    "ROLLBACK",
    "ROLLBACK TRANSACTION TO SAVEPOINT s",
    "SAVEPOINT s",
    "RELEASE s",
    "EXPLAIN ANALYZE SEARCH notes NEAR ?",
    "EXPLAIN QUERY PLAN SELECT 1",
    "EXPLAIN INSERT INTO a VALUES (1)",
    "PRAGMA user_version",
    "PRAGMA synchronous = ON",
    "PRAGMA table_info('notes')",
    "CHECKPOINT truncate",
    "ALTER COLLECTION c RENAME TO d",
    "ALTER TABLE c RENAME COLUMN a TO b",
    "ALTER TABLE c ADD COLUMN x INTEGER DEFAULT 1",
    "ALTER TABLE c DROP COLUMN x",
    "FEEDBACK notes NEAR ? RELEVANT (1, 2) IRRELEVANT ?",
    "ENERGY notes NEAR embedding ?",
    "EXPLORE notes K 5",
    "CONSOLIDATE notes THRESHOLD 0.95 DRY RUN",
    "CONSOLIDATE notes",
    "UNDO notes TO 17",
    "OPTIMIZE",
    "OPTIMIZE notes",
    "VACUUM INTO 'copy.m2m'",
    "ANALYZE notes",
    "REINDEX",
    "FORGET FROM notes WHERE id = 1",
    "REEMBED notes USING 'minilm'",
    "REEMBED notes (embedding) USING 'minilm'",
    "COPY notes TO 'x.jsonl' (format = 'jsonl')",
    "COPY notes FROM ?",
    "SELECT CASE WHEN a THEN 1 ELSE 2 END, CASE a WHEN 1 THEN 2 END, CAST(a AS VARCHAR(20)),"
    " EXISTS (SELECT 1), (SELECT 2), a COLLATE nocase, count(DISTINCT a), CURRENT_TIMESTAMP,"
    " metadata->>'user.name', a <-> ?, x'00ff', 0xFF, NULL, TRUE, false",
    "SELECT a FROM t WHERE a IN ? AND b NOT IN (SELECT 1) AND c IN () AND d NOT LIKE 'a%' ESCAPE"
    " '!' AND e GLOB '*' AND f BETWEEN 1 AND 2 OR g NOT BETWEEN NOT 1 AND 2 AND h ISNULL",
]
