ALTER TABLE "signing_keys" DROP CONSTRAINT "signing_keys_generation_unique";--> statement-breakpoint
UPDATE "signing_keys" SET "generation" = 1 WHERE "not_after" IS NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_in_use" ON "signing_keys" USING btree ("generation","algorithm") WHERE "signing_keys"."not_after" is null;
