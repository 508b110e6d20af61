ALTER TABLE "publisher_progress" ADD COLUMN "leader" text;--> statement-breakpoint
ALTER TABLE "publisher_progress" ADD COLUMN "term" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "publisher_progress" ADD COLUMN "lease_ends_at" timestamp (3) with time zone;