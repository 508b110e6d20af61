ALTER TABLE "providers" ADD COLUMN "rules" jsonb DEFAULT '{}'::jsonb NOT NULL;--> statement-breakpoint
CREATE INDEX "users_by_email" ON "users" USING btree ("tenant_id",lower("email" COLLATE "C"));