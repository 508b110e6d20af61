ALTER TABLE "api_keys" ADD COLUMN "quota" jsonb;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "key_quota" jsonb;--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "user_quota" jsonb;