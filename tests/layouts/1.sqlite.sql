-- dpone's tables as the first layout had them.
CREATE TABLE "_dpone_meta" ("name" TEXT NOT NULL, "value" TEXT NOT NULL, PRIMARY KEY ("name"));
CREATE TABLE "_dpone_locks" ("stream_key" TEXT NOT NULL, "fence" BIGINT NOT NULL, "run_id" TEXT NOT NULL, "holder" TEXT NOT NULL, PRIMARY KEY ("stream_key"));
CREATE TABLE "_dpone_loads" ("load_id" TEXT NOT NULL, "stream_key" TEXT NOT NULL, "run_id" TEXT NOT NULL, "status" TEXT NOT NULL, "fence" BIGINT NOT NULL, "opened_at" TEXT NOT NULL, "document" TEXT NOT NULL, PRIMARY KEY ("load_id"));
CREATE TABLE "_dpone_slices" ("load_id" TEXT NOT NULL, "slice" BIGINT NOT NULL, "rows" BIGINT NOT NULL, PRIMARY KEY ("load_id", "slice"));
CREATE TABLE "_dpone_runs" ("run_id" TEXT NOT NULL, "stream_key" TEXT NOT NULL, "status" TEXT NOT NULL, "started_at" TEXT NOT NULL, "document" TEXT NOT NULL, PRIMARY KEY ("run_id", "stream_key"));
