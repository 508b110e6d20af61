DROP INDEX "signing_keys_in_use";--> statement-breakpoint
ALTER TABLE "signing_keys" ALTER COLUMN "private_jwk" DROP NOT NULL;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "rotation" integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "private_key_sealed" "bytea";--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "not_before" timestamp with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
UPDATE "signing_keys" SET "not_before" = "created_at";--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_in_use" ON "signing_keys" USING btree ("generation","algorithm","rotation") WHERE "signing_keys"."not_after" is null;