ALTER TABLE "revoked_credentials" DROP CONSTRAINT "revoked_credentials_pkey";--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "allowed_cidrs" text[];--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "warned_expires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "imported_sha256" "bytea";--> statement-breakpoint
ALTER TABLE "revoked_credentials" ADD COLUMN "tenant_id" text NOT NULL;--> statement-breakpoint
ALTER TABLE "revoked_credentials" ADD COLUMN "epoch" bigint NOT NULL;--> statement-breakpoint
ALTER TABLE "revoked_credentials" ADD COLUMN "seq" bigint NOT NULL;--> statement-breakpoint
ALTER TABLE "revoked_credentials" ADD CONSTRAINT "revoked_credentials_signing_input_sha256_tenant_id_pk" PRIMARY KEY("signing_input_sha256","tenant_id");--> statement-breakpoint
ALTER TABLE "tenants" ADD COLUMN "api_keys_per_user_max" integer DEFAULT 100 NOT NULL;--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "kind" text DEFAULT 'person' NOT NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "api_keys_by_imported_sha256" ON "api_keys" USING btree ("imported_sha256") WHERE "api_keys"."imported_sha256" IS NOT NULL;--> statement-breakpoint
CREATE INDEX "api_keys_by_end" ON "api_keys" USING btree ("expires_at") WHERE "api_keys"."expires_at" IS NOT NULL;