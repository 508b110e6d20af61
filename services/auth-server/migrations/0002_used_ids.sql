CREATE TABLE "used_ids" (
	"id_sha256" text PRIMARY KEY NOT NULL,
	"expires_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE INDEX "used_ids_by_expiry" ON "used_ids" USING btree ("expires_at");