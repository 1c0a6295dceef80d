-- dpone's tables as the first layout had them.
CREATE TABLE _dpone_meta (name text NOT NULL, value text NOT NULL, PRIMARY KEY (name));
CREATE TABLE _dpone_locks (stream_key text NOT NULL, fence bigint NOT NULL, run_id text NOT NULL, holder text NOT NULL, PRIMARY KEY (stream_key));
CREATE TABLE _dpone_loads (load_id text NOT NULL, stream_key text NOT NULL, run_id text NOT NULL, status text NOT NULL, fence bigint NOT NULL, opened_at text NOT NULL, document text NOT NULL, PRIMARY KEY (load_id));
CREATE TABLE _dpone_slices (load_id text NOT NULL, slice bigint NOT NULL, rows bigint NOT NULL, PRIMARY KEY (load_id, slice));
CREATE TABLE _dpone_runs (run_id text NOT NULL, stream_key text NOT NULL, status text NOT NULL, started_at text NOT NULL, document text NOT NULL, PRIMARY KEY (run_id, stream_key));
