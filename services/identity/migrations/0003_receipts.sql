CREATE TABLE "change_receipts" (
	"gateway_id" text NOT NULL,
	"epoch" bigint NOT NULL,
	"seq_from" bigint NOT NULL,
	"seq_to" bigint NOT NULL,
	"effective_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "change_receipts_gateway_id_epoch_seq_from_seq_to_pk" PRIMARY KEY("gateway_id","epoch","seq_from","seq_to")
);
--> statement-breakpoint
CREATE TABLE "gateways" (
	"id" text PRIMARY KEY NOT NULL,
	"seen_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE INDEX "change_receipts_by_seq" ON "change_receipts" USING btree ("seq_to");