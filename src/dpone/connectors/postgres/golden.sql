-- replace into a new table
/* run  */ CREATE TABLE "target schema"."orders" ("id" integer, "name" text, "amount" numeric(12,2), "active" boolean, "day" date, "at" timestamp with time zone, "score" double precision);
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* rows deleted */ DELETE FROM "target schema"."orders";
/* rows inserted */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest final_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
-- replace into a table that is there
/* run  */ LOCK TABLE "target schema"."orders" IN SHARE ROW EXCLUSIVE MODE;
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* digest before_digest only if staged = before */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
/* digest staged_digest only if staged = before */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef") AS r;
/* rows deleted unless staged_digest = before_digest */ DELETE FROM "target schema"."orders";
/* rows inserted unless staged_digest = before_digest */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest final_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
-- append into a new table
/* run  */ CREATE TABLE "target schema"."orders" ("id" integer, "name" text, "amount" numeric(12,2), "active" boolean, "day" date, "at" timestamp with time zone, "score" double precision);
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* digest before_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
/* rows inserted */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest final_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
-- append into a table that is there
/* run  */ LOCK TABLE "target schema"."orders" IN SHARE ROW EXCLUSIVE MODE;
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* digest before_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
/* rows inserted */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest final_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
-- append into a table that is there, some rows again
/* run  */ LOCK TABLE "target schema"."orders" IN SHARE ROW EXCLUSIVE MODE;
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* digest before_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
/* digest ties_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT s._dpone_at FROM (SELECT "id", "name", "amount", "active", "day", "at", "score", _dpone_row AS _dpone_at, row_number() OVER (PARTITION BY "id", "name" COLLATE pg_catalog."C", "amount", "active", "day", "at", float8send("score"::double precision)) AS _dpone_copy FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_slice IN (1)) AS s JOIN (SELECT "id", "name", "amount", "active", "day", "at", "score", row_number() OVER (PARTITION BY "id", "name" COLLATE pg_catalog."C", "amount", "active", "day", "at", float8send("score"::double precision)) AS _dpone_copy FROM "target schema"."orders" WHERE "at" >= (SELECT min("at") FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_slice IN (1)) AND "at" <= (SELECT max("at") FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_slice IN (1))) AS t ON s._dpone_copy = t._dpone_copy AND (s."id" IS NOT DISTINCT FROM t."id") AND (s."name" COLLATE pg_catalog."C" IS NOT DISTINCT FROM t."name" COLLATE pg_catalog."C") AND (s."amount" IS NOT DISTINCT FROM t."amount") AND (s."active" IS NOT DISTINCT FROM t."active") AND (s."day" IS NOT DISTINCT FROM t."day") AND (s."at" IS NOT DISTINCT FROM t."at") AND (float8send(s."score"::double precision) IS NOT DISTINCT FROM float8send(t."score"::double precision)))) AS r;
/* rows unchanged */ DELETE FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT s._dpone_at FROM (SELECT "id", "name", "amount", "active", "day", "at", "score", _dpone_row AS _dpone_at, row_number() OVER (PARTITION BY "id", "name" COLLATE pg_catalog."C", "amount", "active", "day", "at", float8send("score"::double precision)) AS _dpone_copy FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_slice IN (1)) AS s JOIN (SELECT "id", "name", "amount", "active", "day", "at", "score", row_number() OVER (PARTITION BY "id", "name" COLLATE pg_catalog."C", "amount", "active", "day", "at", float8send("score"::double precision)) AS _dpone_copy FROM "target schema"."orders" WHERE "at" >= (SELECT min("at") FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_slice IN (1)) AND "at" <= (SELECT max("at") FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_slice IN (1))) AS t ON s._dpone_copy = t._dpone_copy AND (s."id" IS NOT DISTINCT FROM t."id") AND (s."name" COLLATE pg_catalog."C" IS NOT DISTINCT FROM t."name" COLLATE pg_catalog."C") AND (s."amount" IS NOT DISTINCT FROM t."amount") AND (s."active" IS NOT DISTINCT FROM t."active") AND (s."day" IS NOT DISTINCT FROM t."day") AND (s."at" IS NOT DISTINCT FROM t."at") AND (float8send(s."score"::double precision) IS NOT DISTINCT FROM float8send(t."score"::double precision)));
/* rows inserted */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest final_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."orders") AS r;
-- merge into a new table
/* run  */ CREATE TABLE "target schema"."orders" ("id" integer NOT NULL, "name" text, "amount" numeric(12,2), "active" boolean, "day" date, "at" timestamp with time zone, "score" double precision, PRIMARY KEY ("id"));
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* scalar keyed */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE "id" IS NOT NULL;
/* digest collapsed_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT _dpone_at FROM (SELECT _dpone_row AS _dpone_at, row_number() OVER (PARTITION BY "id" ORDER BY "at" DESC NULLS LAST, _dpone_slice DESC, _dpone_row DESC) AS _dpone_version FROM "target schema"."_dpone_stage_0123456789abcdef") AS v WHERE _dpone_version > 1)) AS r;
/* rows collapsed */ DELETE FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT _dpone_at FROM (SELECT _dpone_row AS _dpone_at, row_number() OVER (PARTITION BY "id" ORDER BY "at" DESC NULLS LAST, _dpone_slice DESC, _dpone_row DESC) AS _dpone_version FROM "target schema"."_dpone_stage_0123456789abcdef") AS v WHERE _dpone_version > 1);
/* digest stale_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT s._dpone_row FROM "target schema"."_dpone_stage_0123456789abcdef" AS s JOIN "target schema"."orders" AS t ON s."id" = t."id" WHERE t."at" > s."at")) AS r;
/* rows stale */ DELETE FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT s._dpone_row FROM "target schema"."_dpone_stage_0123456789abcdef" AS s JOIN "target schema"."orders" AS t ON s."id" = t."id" WHERE t."at" > s."at");
/* scalar unchanged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef" AS s JOIN "target schema"."orders" AS t ON s."id" = t."id" WHERE (t."name" COLLATE pg_catalog."C" IS NOT DISTINCT FROM s."name" COLLATE pg_catalog."C") AND (t."amount" IS NOT DISTINCT FROM s."amount") AND (t."active" IS NOT DISTINCT FROM s."active") AND (t."day" IS NOT DISTINCT FROM s."day") AND (t."at" IS NOT DISTINCT FROM s."at") AND (float8send(t."score"::double precision) IS NOT DISTINCT FROM float8send(s."score"::double precision));
/* rows updated only if staged = keyed */ UPDATE "target schema"."orders" AS t SET "name" = s."name", "amount" = s."amount", "active" = s."active", "day" = s."day", "at" = s."at", "score" = s."score" FROM "target schema"."_dpone_stage_0123456789abcdef" AS s WHERE s."id" = t."id" AND NOT ((t."name" COLLATE pg_catalog."C" IS NOT DISTINCT FROM s."name" COLLATE pg_catalog."C") AND (t."amount" IS NOT DISTINCT FROM s."amount") AND (t."active" IS NOT DISTINCT FROM s."active") AND (t."day" IS NOT DISTINCT FROM s."day") AND (t."at" IS NOT DISTINCT FROM s."at") AND (float8send(t."score"::double precision) IS NOT DISTINCT FROM float8send(s."score"::double precision)));
/* rows inserted only if staged = keyed */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT s."id", s."name", s."amount", s."active", s."day", s."at", s."score" FROM "target schema"."_dpone_stage_0123456789abcdef" AS s WHERE NOT EXISTS (SELECT 1 FROM "target schema"."orders" AS t WHERE s."id" = t."id");
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest applied_digest */ (SELECT t."id", t."name", t."amount", t."active", t."day", t."at", t."score" FROM "target schema"."orders" AS t JOIN "target schema"."_dpone_stage_0123456789abcdef" AS s ON s."id" = t."id") AS r;
-- merge into a table that is there
/* run  */ LOCK TABLE "target schema"."orders" IN SHARE ROW EXCLUSIVE MODE;
/* scalar staged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef";
/* scalar before */ SELECT count(*) FROM "target schema"."orders";
/* scalar keyed */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE "id" IS NOT NULL;
/* digest collapsed_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT _dpone_at FROM (SELECT _dpone_row AS _dpone_at, row_number() OVER (PARTITION BY "id" ORDER BY "at" DESC NULLS LAST, _dpone_slice DESC, _dpone_row DESC) AS _dpone_version FROM "target schema"."_dpone_stage_0123456789abcdef") AS v WHERE _dpone_version > 1)) AS r;
/* rows collapsed */ DELETE FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT _dpone_at FROM (SELECT _dpone_row AS _dpone_at, row_number() OVER (PARTITION BY "id" ORDER BY "at" DESC NULLS LAST, _dpone_slice DESC, _dpone_row DESC) AS _dpone_version FROM "target schema"."_dpone_stage_0123456789abcdef") AS v WHERE _dpone_version > 1);
/* digest stale_digest */ (SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT s._dpone_row FROM "target schema"."_dpone_stage_0123456789abcdef" AS s JOIN "target schema"."orders" AS t ON s."id" = t."id" WHERE t."at" > s."at")) AS r;
/* rows stale */ DELETE FROM "target schema"."_dpone_stage_0123456789abcdef" WHERE _dpone_row IN (SELECT s._dpone_row FROM "target schema"."_dpone_stage_0123456789abcdef" AS s JOIN "target schema"."orders" AS t ON s."id" = t."id" WHERE t."at" > s."at");
/* scalar unchanged */ SELECT count(*) FROM "target schema"."_dpone_stage_0123456789abcdef" AS s JOIN "target schema"."orders" AS t ON s."id" = t."id" WHERE (t."name" COLLATE pg_catalog."C" IS NOT DISTINCT FROM s."name" COLLATE pg_catalog."C") AND (t."amount" IS NOT DISTINCT FROM s."amount") AND (t."active" IS NOT DISTINCT FROM s."active") AND (t."day" IS NOT DISTINCT FROM s."day") AND (t."at" IS NOT DISTINCT FROM s."at") AND (float8send(t."score"::double precision) IS NOT DISTINCT FROM float8send(s."score"::double precision));
/* rows updated only if staged = keyed */ UPDATE "target schema"."orders" AS t SET "name" = s."name", "amount" = s."amount", "active" = s."active", "day" = s."day", "at" = s."at", "score" = s."score" FROM "target schema"."_dpone_stage_0123456789abcdef" AS s WHERE s."id" = t."id" AND NOT ((t."name" COLLATE pg_catalog."C" IS NOT DISTINCT FROM s."name" COLLATE pg_catalog."C") AND (t."amount" IS NOT DISTINCT FROM s."amount") AND (t."active" IS NOT DISTINCT FROM s."active") AND (t."day" IS NOT DISTINCT FROM s."day") AND (t."at" IS NOT DISTINCT FROM s."at") AND (float8send(t."score"::double precision) IS NOT DISTINCT FROM float8send(s."score"::double precision)));
/* rows inserted only if staged = keyed */ INSERT INTO "target schema"."orders" ("id", "name", "amount", "active", "day", "at", "score") SELECT s."id", s."name", s."amount", s."active", s."day", s."at", s."score" FROM "target schema"."_dpone_stage_0123456789abcdef" AS s WHERE NOT EXISTS (SELECT 1 FROM "target schema"."orders" AS t WHERE s."id" = t."id");
/* scalar final */ SELECT count(*) FROM "target schema"."orders";
/* digest applied_digest */ (SELECT t."id", t."name", t."amount", t."active", t."day", t."at", t."score" FROM "target schema"."orders" AS t JOIN "target schema"."_dpone_stage_0123456789abcdef" AS s ON s."id" = t."id") AS r;
-- read everything
SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "source schema"."orders" WHERE (total > 0) AND place < 100;
SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "source schema"."orders" WHERE (total > 0) AND place >= 100;
-- read what is new
SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "source schema"."orders" WHERE (total > 0) AND ("at" > cursor('1') AND "at" <= cursor('2'));
-- read what is new, the rows at the checkpoint again
SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "source schema"."orders" WHERE (total > 0) AND ("at" >= cursor('1') AND "at" <= cursor('2'));
-- read what is new, and rows without a cursor
SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "source schema"."orders" WHERE (total > 0) AND ("at" > cursor('1') AND "at" <= cursor('2') OR "at" IS NULL);
-- read the first window
SELECT "id", "name", "amount", "active", "day", "at", "score" FROM "source schema"."orders" WHERE (total > 0) AND ("at" <= cursor('2'));
