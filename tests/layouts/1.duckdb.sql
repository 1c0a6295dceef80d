-- dpone's tables as the first layout had them.
CREATE TABLE main._dpone_meta (name VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (name));
CREATE TABLE main._dpone_locks (stream_key VARCHAR NOT NULL, fence BIGINT NOT NULL, run_id VARCHAR NOT NULL, holder VARCHAR NOT NULL, PRIMARY KEY (stream_key));
CREATE TABLE main._dpone_loads (load_id VARCHAR NOT NULL, stream_key VARCHAR NOT NULL, run_id VARCHAR NOT NULL, status VARCHAR NOT NULL, fence BIGINT NOT NULL, opened_at VARCHAR NOT NULL, document VARCHAR NOT NULL, PRIMARY KEY (load_id));
CREATE TABLE main._dpone_slices (load_id VARCHAR NOT NULL, slice BIGINT NOT NULL, rows BIGINT NOT NULL, PRIMARY KEY (load_id, slice));
CREATE TABLE main._dpone_runs (run_id VARCHAR NOT NULL, stream_key VARCHAR NOT NULL, status VARCHAR NOT NULL, started_at VARCHAR NOT NULL, document VARCHAR NOT NULL, PRIMARY KEY (run_id, stream_key));
