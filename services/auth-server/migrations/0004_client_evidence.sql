ALTER TABLE "clients" ADD COLUMN "evidence" jsonb;--> statement-breakpoint
ALTER TABLE "clients" ADD COLUMN "permissions" jsonb DEFAULT '{}'::jsonb NOT NULL;